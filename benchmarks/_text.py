# SPDX-License-Identifier: Apache-2.0
"""English words and sentences that networks are measured on, written for this."""

WORDS = """
abandon absolute accident acoustic adventure aerial aggregate airplane algebra almanac
ambition analogy anchor ancient antelope apricot aquarium argument asphalt atlas
bachelor balance bamboo banquet barricade beacon bicycle biscuit blanket blizzard
bonfire boulder bracelet brigade buffalo bulletin cabinet calendar candle canyon
caravan cathedral cauldron cavalry ceramic champion chandelier chemistry chocolate cinnamon
citadel climate cobweb colony comet compass conductor coral cradle crescent
crystal cucumber curious cylinder daffodil daughter decimal delicate desert diagonal
dialogue diamond dinosaur domain dragonfly drought dynamic earthquake eclipse elbow
elephant embassy emerald engine envelope equator evidence exotic fabric falcon
fathom feather festival fiction firewood flamingo fragile freight furnace galaxy
gallery garlic gazelle genius geometry giraffe glacier gondola gorilla gravity
guitar habitat hammock harbor harvest hemisphere heritage hexagon horizon hurricane
iceberg igloo imagine insect island ivory jaguar jasmine jewel journal
jubilee jungle kangaroo kettle keyboard kitchen knowledge laboratory ladder language
lantern leather legend lemonade library lighthouse lizard lobster luggage machine
magnet mandarin marathon meadow melody mercury midnight mirror mosaic mountain
museum mustard mystery napkin narrow necklace neighbor nitrogen notebook nuclear
""".split()

SENTENCES = """
The train to the coast leaves at six in the morning.
She planted tomatoes and beans behind the old barn.
Heavy rain flooded the lower streets of the city.
A committee will review the budget before the summer.
The guitarist broke two strings during the concert.
Vaccines protect most children against measles.
He forgot his keys and had to climb through the window.
The telescope showed four moons near the planet.
Prices of copper fell for the third week in a row.
Our neighbors adopted a deaf dog from the shelter.
The novel follows a sailor who never learned to swim.
Please send the signed contract to the office by Friday.
Bees find their way home by the position of the sun.
The court ruled that the fence stood on public land.
Fresh bread smells best when the crust begins to crack.
Engineers tested the bridge with a hundred trucks.
The goalkeeper saved a penalty in the final minute.
Glaciers carve valleys and leave lakes behind them.
My grandmother kept every letter she ever received.
The software crashed because a counter overflowed.
Two planes landed safely after their radios failed.
The museum returned the mask to the village it came from.
Drink water before you feel thirsty in the desert.
Interest rates may rise again before the end of the year.
The chef burned the first pancake and ate the second.
A thin layer of ice covered the pond this morning.
Teachers asked for smaller classes and better chairs.
The detective noticed mud on the butler's left shoe.
Whales sing at frequencies that travel across oceans.
The new law taxes sugar in soft drinks.
Children learn a second language faster than adults.
The printer is out of paper, and the ink is low.
An old oak fell on the road and blocked the traffic.
The choir rehearses on Tuesdays in the church hall.
Solar panels on the roof power the whole workshop.
The patient slept well after the operation.
Wolves returned to the forest after fifty years.
The startup sold its patents to a rival company.
Carry the tent, and I will take the stove and the food.
The painter mixed blue and yellow until it looked like moss.
Traffic lights at the corner have been broken since May.
A virus spread through the network overnight.
The river is too shallow for boats in August.
Her speech was short, clear and a little funny.
The bakery on the corner closes earlier in winter.
Astronauts exercise two hours a day to keep their bones strong.
The farmer sold his sheep and bought a tractor.
The chess player sacrificed a queen and won.
Dust from the volcano turned the sunset red.
The committee rejected the plan by a single vote.
Cats sleep for two thirds of their lives.
The lawyer read the will aloud in a cold room.
Trade between the two islands began with salt.
The old clock strikes thirteen at noon.
A good map shows what the traveler needs and nothing else.
The band played the same song twice by mistake.
Salmon swim up the river in which they were born.
The mayor promised to plant a thousand trees.
The experiment failed because the room was too warm.
Many birds fly south when the days grow short.
The bank froze the account after three wrong passwords.
Her bicycle has no brakes, but the town has no hills.
The library lends tools, seeds and musical instruments.
Nobody expected the quiet student to win the debate.
""".strip().splitlines()
