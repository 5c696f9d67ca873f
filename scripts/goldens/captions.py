"""The captioned pictures of train/ and the sentences the little tokenizers are built from."""

# (figure, colour, ground, caption); batches of 8 in this order. Equal captions stand both in one batch
# (0 and 5, 10 and 13, 17 and 22) and in two (1 and 12).
PICTURES = [
    ("circle", "red", "blue", "a red circle on a blue ground"),
    ("square", "green", "white", "a green square"),
    ("stripes", "blue", "white", "blue and white stripes"),
    ("triangle", "yellow", "black", "a yellow triangle in the dark"),
    ("circle", "white", "green", "one white ball lying on the grass"),
    ("circle", "red", "blue", "a red circle on a blue ground"),
    ("square", "black", "yellow", "black square, yellow ground"),
    ("stripes", "red", "green", "stripes"),
    ("triangle", "red", "white", "a sharp red triangle points up on a sheet of white paper"),
    ("square", "blue", "red", "a blue box on a red table"),
    ("circle", "yellow", "blue", "the sun in the sky"),
    ("stripes", "black", "yellow", "a bee has black and yellow stripes"),
    ("square", "green", "black", "a green square"),
    ("circle", "yellow", "blue", "the sun in the sky"),
    ("triangle", "green", "blue", "a green hill by the sea"),
    ("circle", "black", "white", "dot"),
    ("square", "white", "blue", "a white house at the sea"),
    ("stripes", "green", "white", "fresh green lines"),
    ("circle", "blue", "yellow", "a blue ball in the sand"),
    ("triangle", "black", "red", "a dark roof against the red evening sky"),
    ("square", "red", "green", "a red barn on the grass"),
    ("circle", "green", "red", "a green apple, a red cloth"),
    ("stripes", "green", "black", "fresh green lines"),
    ("triangle", "white", "black", "a white sail at night"),
]

SENTENCES = [caption for *_, caption in PICTURES] + [
    "a photo of a cat sitting on the table",
    "two dogs running in the sand",
    "three birds against the evening sky",
    "a small boat at sea",
    "an old house by the road",
    "the cat sleeps in a box",
    "children playing with a ball on the grass",
    "a plate of apples and bread",
    "snow on the roof of the barn",
    "a woman reading under the lamp",
    "the road at night, with lights",
    "a photo of a dog in the snow",
    "flowers in a glass on the table",
    "a man riding a horse by the sea",
    "a close photo of a bee",
    "a sheet of paper with lines and dots",
]
