# SPDX-License-Identifier: Apache-2.0
"""The numbers that the published implementations give, and the factor where ours differ.

Elsewhere losses are compared with their papers. Here it is with code that people come
from, which is in torch: what it averages over, what it leaves out, which conventions it
has. Its steps are written out in numpy, in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import distill

BATCH, CLASSES, WIDTH = 6, 5, 8
LABELS = np.array([0, 4, 2, 2, 1, 3])
IDS, EXAMPLES, NEGATIVES = np.array([3, 0, 11, 7, 5, 9]), 12, 7
OTHERS = (IDS[:, None] + np.random.default_rng(5).integers(1, 12, (6, 7))) % EXAMPLES


def array(seed, *shape, size=1.0):
    return size * np.random.default_rng(seed).normal(size=shape)


LOGITS = array(0, BATCH, CLASSES, size=3), array(1, BATCH, CLASSES, size=3)
TOKENS = array(2, 2, 4, CLASSES, size=3), array(3, 2, 4, CLASSES, size=3)
COUNTS = np.array([[True, True, True, False], [True, False, False, False]])
VECTORS = array(4, BATCH, WIDTH), array(5, BATCH, 3)
MAPS = array(6, BATCH, 4, 3, 3), array(7, BATCH, 2, 3, 3)  # channels first
POSITIONS = array(8, 2, 5, WIDTH), array(9, 2, 5, 4)
EMBEDDINGS = array(10, BATCH, WIDTH), array(11, BATCH, WIDTH)
BANKS = array(12, EXAMPLES, WIDTH), array(13, EXAMPLES, WIDTH)


# What the codes call of torch.


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def softmax(x):
    return np.exp(log_softmax(x))


def kl_div(log_q, p):
    return p * (np.log(p) - log_q)


def normalize(x, axis=1):
    return x / np.linalg.norm(x, axis=axis, keepdims=True).clip(1e-12)


def smooth_l1(x, y):
    gap = np.abs(x - y)
    return np.where(gap < 1, gap**2 / 2, gap - 0.5)


# What the codes do with it.


def hinton(student, teacher, temperature):
    """``F.kl_div(log_softmax, softmax, reduction="batchmean") * T * T``."""
    log_q, p = log_softmax(student / temperature), softmax(teacher / temperature)
    return kl_div(log_q, p).sum() / len(student) * temperature**2


def mdistiller_dkd(student, teacher, labels, alpha, beta, temperature):
    label = np.eye(CLASSES, dtype=bool)[labels]

    def two(x):
        p = softmax(x / temperature)
        return np.stack([(p * label).sum(1), (p * ~label).sum(1)], 1)

    target = kl_div(np.log(two(student)), two(teacher)).sum()
    # The label is taken out by a logit of -1000.
    others = kl_div(
        log_softmax(student / temperature - 1000.0 * label),
        np.maximum(softmax(teacher / temperature - 1000.0 * label), 1e-300),
    )[~label].sum()
    return (alpha * target + beta * others) * temperature**2 / len(labels)


def dist_kd(student, teacher, tau, *, intra):
    y_s, y_t = softmax(student / tau), softmax(teacher / tau)
    if intra:
        y_s, y_t = y_s.T, y_t.T
    a, b = (y - y.mean(1, keepdims=True) for y in (y_s, y_t))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return tau**2 * (1 - ((a * b).sum(1) / (norms + 1e-8)).mean())


def standardized_kd(student, teacher, temperature):
    def standardized(x):  # torch.std divides by one less than the number of classes
        return (x - x.mean(-1, keepdims=True)) / (
            1e-7 + x.std(-1, ddof=1, keepdims=True)
        )

    return hinton(standardized(student), standardized(teacher), temperature)


def attention_maps(student, teacher):
    def at(f):
        return normalize((f**2).mean(1).reshape(len(f), -1))

    return ((at(student) - at(teacher)) ** 2).mean()


def rkd_distance(student, teacher):
    def distances(e):
        squares = (e**2).sum(1)
        d = np.sqrt((squares[:, None] + squares[None] - 2 * e @ e.T).clip(1e-12))
        np.fill_diagonal(d, 0)
        return d / d[d > 0].mean()

    return smooth_l1(distances(student), distances(teacher)).mean()


def rkd_angle(student, teacher):
    def angles(e):
        to = normalize(e[None] - e[:, None], axis=2)
        return to @ to.transpose(0, 2, 1)

    return smooth_l1(angles(student), angles(teacher)).mean()


def similarities(student, teacher):
    gap = normalize(student @ student.T) - normalize(teacher @ teacher.T)
    return (gap * gap).sum() / BATCH**2


def trl_jsd(student, teacher, counts, beta, temperature):
    """GKD's in TRL: no T**2, and a mean over the tokens that count."""
    s, t = log_softmax(student / temperature), log_softmax(teacher / temperature)
    if beta == 0:
        loss = kl_div(s, np.exp(t))
    elif beta == 1:
        loss = kl_div(t, np.exp(s))
    else:
        m = np.logaddexp(s + np.log1p(-beta), t + np.log(beta))
        loss = beta * kl_div(m, np.exp(t)) + (1 - beta) * kl_div(m, np.exp(s))
    return loss[counts].sum() / counts.sum()


def minilm(student, teacher, heads):
    """Of queries, keys or values: a mean over examples, relation heads and positions."""

    def relations(x):
        x = x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)
        return x @ x.transpose(0, 1, 3, 2) / np.sqrt(x.shape[-1])

    loss = kl_div(log_softmax(relations(student)), softmax(relations(teacher)))
    return loss.sum() / (loss.size / loss.shape[-1])


def crd_first_batch(student, teacher, banks):
    """``ContrastMemory`` and ``ContrastLoss`` where no constant is set yet."""
    rows, total = np.concatenate([IDS[:, None], OTHERS], 1), 0.0
    for x, bank in ((student, banks[1]), (teacher, banks[0])):
        out = np.exp(np.einsum("bkd,bd->bk", bank[rows], normalize(x)) / 0.07)
        out = out / (out.mean() * EXAMPLES)
        noise, eps = NEGATIVES / EXAMPLES, 1e-7
        log_d1 = np.log(out[:, 0] / (out[:, 0] + noise + eps))
        log_d0 = np.log(noise / (out[:, 1:] + noise + eps))
        total -= (log_d1.sum() + log_d0.sum()) / BATCH
    return total


# The table: ours reduced as the code is, the code, and what theirs is of ours.


def mean(loss, **options):
    return lambda s, t: loss(s, t, **options).mean()


def counted_mean(loss, **options):
    def of(s, t):
        return loss(s, t, where=jnp.asarray(COUNTS), **options).sum() / COUNTS.sum()

    return of


def dkd(s, t):
    labels = jnp.asarray(LABELS)
    return distill.decoupled(
        s, t, labels, target=1.5, others=8.0, temperature=4.0
    ).mean()


def standardized(s, t):
    s, t = distill.standardized(s), distill.standardized(t)
    # Deviations with n - 1 make logits smaller: that is a higher temperature.
    return distill.kl(s, t, temperature=2 * (CLASSES / (CLASSES - 1)) ** 0.5).mean()


def crd(s, t):
    unknown = jnp.float32(jnp.nan)
    banks = [jnp.asarray(normalize(bank), jnp.float32) for bank in BANKS]
    memory = distill.Memory(banks[0], banks[1], unknown, unknown)
    return distill.crd(s, t, memory, jnp.asarray(IDS), jnp.asarray(OTHERS))[0].mean()


PAIRS = (BATCH - 1) / BATCH  # they average in the examples with themselves
CASES = {
    "KD": (
        mean(distill.kl, temperature=4.0),
        lambda s, t: hinton(s, t, 4.0),
        LOGITS,
        1,
    ),
    "DKD": (dkd, lambda s, t: mdistiller_dkd(s, t, LABELS, 1.5, 8.0, 4.0), LOGITS, 1),
    "DIST between classes": (
        mean(distill.dist_inter, temperature=2.0),
        lambda s, t: dist_kd(s, t, 2.0, intra=False),
        LOGITS,
        1,
    ),
    "DIST within classes": (
        mean(distill.dist_intra, temperature=2.0),
        lambda s, t: dist_kd(s, t, 2.0, intra=True),
        LOGITS,
        1,
    ),
    "logit standardization": (
        standardized,
        lambda s, t: standardized_kd(s, t, 2.0),
        LOGITS,
        (CLASSES - 1) / CLASSES,  # the square of the other temperature
    ),
    "attention transfer": (
        mean(distill.attention_transfer, channel_axis=1),
        attention_maps,
        MAPS,
        1,
    ),
    "RKD distance": (mean(distill.relational_distance), rkd_distance, VECTORS, PAIRS),
    "RKD angle": (
        mean(distill.relational_angle),
        rkd_angle,
        VECTORS,
        PAIRS * (BATCH - 2) / BATCH,
    ),
    "similarity preserving": (
        mean(distill.similarity_preserving),
        similarities,
        VECTORS,
        1,
    ),
    "GKD, beta 0": (
        counted_mean(distill.kl, temperature=2.0),
        lambda s, t: trl_jsd(s, t, COUNTS, 0, 2.0),
        TOKENS,
        1 / 4,
    ),
    "GKD, beta 0.1": (
        counted_mean(distill.jensen_shannon, mix=0.1, temperature=2.0),
        lambda s, t: trl_jsd(s, t, COUNTS, 0.1, 2.0),
        TOKENS,
        1 / 4,
    ),
    "GKD, beta 0.9": (
        counted_mean(distill.jensen_shannon, mix=0.9),
        lambda s, t: trl_jsd(s, t, COUNTS, 0.9, 1.0),
        TOKENS,
        1,
    ),
    "GKD, beta 1": (
        counted_mean(distill.reverse_kl, temperature=2.0),
        lambda s, t: trl_jsd(s, t, COUNTS, 1, 2.0),
        TOKENS,
        1 / 4,
    ),
    "MiniLM": (
        mean(distill.attention_relations, heads=2),
        lambda s, t: minilm(s, t, 2),
        POSITIONS,
        1,
    ),
    "CRD": (
        crd,
        lambda s, t: crd_first_batch(s, t, [normalize(bank) for bank in BANKS]),
        EMBEDDINGS,
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_the_published_code_gives(name):
    ours, theirs, given, factor = CASES[name]
    s, t = (jnp.asarray(x, jnp.float32) for x in given)
    want = theirs(*given)
    assert want > 1e-3
    np.testing.assert_allclose(factor * jax.jit(ours)(s, t), want, rtol=2e-4)
