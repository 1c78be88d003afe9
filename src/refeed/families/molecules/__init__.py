"""Models of molecular conformations: GeoDiff, fitted from scratch on conformers of drug-like molecules."""

from refeed.core.protocols import Family

FAMILY = Family(
    name="molecules",
    about="GeoDiff on molecular conformations: drug-like molecules with conformers by RDKit, or GEOM's own files",
    sources={
        "conformers": "refeed.families.molecules.source:Conformers",
        "geom": "refeed.families.molecules.geom:Geom",
    },
    learners={
        "geodiff": "refeed.families.molecules.learner:GeoDiff",
        "geodiff-paper": "refeed.families.molecules.learner:paper",
        "geodiff-epochs": "refeed.families.molecules.learner:by_epochs",
    },
    samplers={
        "strided": "refeed.families.molecules.sampler:Strided",
        "langevin": "refeed.families.molecules.sampler:Langevin",
        "truncated": "refeed.families.molecules.sampler:Truncated",
    },
    metrics={
        "denoising_loss": "refeed.families.molecules.metrics:DenoisingLoss",
        "aligned_loss": "refeed.families.molecules.metrics:AlignedLoss",
        "coverage": "refeed.families.molecules.metrics:Coverage",
        "geometry": "refeed.families.molecules.metrics:Geometry",
    },
    default={
        "source": "conformers",
        "learner": "geodiff",
        "sampler": "strided",
        "metrics": ["denoising_loss", "geometry", "coverage"],
    },
    extra="molecules",
    requires=("torch", "rdkit"),
    exhibit="refeed.families.molecules.exhibit:conformers",
    exhibit_kind="image",
    exhibit_count=8,
    portrait="refeed.families.molecules.exhibit:portrait",
    decode="refeed.families.molecules.exhibit:decode",
)
