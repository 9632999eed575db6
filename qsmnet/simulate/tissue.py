"""Labels and susceptibility ranges of tissue (ppm relative to CSF-like water).

Labels are those of the QSM-CI scheme. Ranges span published means (challenge phantom 2.0, Marques
et al. 2021, 10.1002/mrm.28716; Ridani et al. 2024) with room for age, disease and partial volume on
both sides.
"""

CAUDATE, PALLIDUM, PUTAMEN, RED_NUCLEUS, DENTATE, NIGRA, THALAMUS = 1, 2, 3, 4, 5, 6, 7
WHITE_MATTER, GREY_MATTER, CSF, BLOOD, CALCIFICATION = 8, 9, 10, 11, 16
# outside the brain, and what the QSM-CI scheme has no number for
FAT, BONE, AIR, MUSCLE = 12, 13, 14, 15
HAEMORRHAGE, SKIN, EYE, MUCOSA, MARROW, ARTERY = 17, 18, 19, 20, 21, 22

#: label: (lowest, highest) mean susceptibility in ppm.
RANGES: dict[int, tuple[float, float]] = {
    CAUDATE: (0.02, 0.10),
    PALLIDUM: (0.08, 0.25),
    PUTAMEN: (0.02, 0.12),
    RED_NUCLEUS: (0.05, 0.18),
    DENTATE: (0.05, 0.20),
    NIGRA: (0.06, 0.22),
    THALAMUS: (-0.01, 0.05),
    WHITE_MATTER: (-0.06, 0.0),
    GREY_MATTER: (0.0, 0.05),
    CSF: (-0.01, 0.03),
    BLOOD: (0.15, 0.45),
}

#: Name of each label, for tables and sidecars.
NAMES: dict[int, str] = {
    CAUDATE: "caudate",
    PALLIDUM: "globus pallidus",
    PUTAMEN: "putamen",
    RED_NUCLEUS: "red nucleus",
    DENTATE: "dentate nucleus",
    NIGRA: "substantia nigra",
    THALAMUS: "thalamus",
    WHITE_MATTER: "white matter",
    GREY_MATTER: "grey matter",
    CSF: "cerebrospinal fluid",
    BLOOD: "venous blood",
    FAT: "fat",
    BONE: "bone",
    AIR: "air",
    MUSCLE: "muscle",
    CALCIFICATION: "calcification",
    HAEMORRHAGE: "haemorrhage",
    SKIN: "skin",
    EYE: "eye",
    MUCOSA: "mucosa",
    MARROW: "marrow",
    ARTERY: "artery",
}
