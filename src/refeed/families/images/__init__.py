"""Models of images, fitted from scratch on drawn faces, scanned digits, CelebA or the user's own files."""

from refeed.core.protocols import Family

FAMILY = Family(
    name="images",
    about="auto-encoders and flows on images: faces with known factors, scanned digits, CelebA, or your own files",
    sources={
        "faces": "refeed.families.images.source:Faces",
        "digits": "refeed.families.images.source:Digits",
        "folder": "refeed.families.images.files:Folder",
        "array": "refeed.families.images.files:Array",
        "celeba": "refeed.families.images.files:CelebA",
        "huggingface": "refeed.families.images.huggingface:HuggingFace",
    },
    learners={
        "vae": "refeed.families.images.learner:VAE",
        "vae-paper": "refeed.families.images.learner:paper",
        "vae-smoke": "refeed.families.images.learner:smoke",
        "flow": "refeed.families.images.flow:FlowMatching",
    },
    samplers={"prior": "refeed.families.images.sampler:Prior"},
    metrics={
        "test_loss": "refeed.families.images.metrics:TestLoss",
        "distances": "refeed.families.images.metrics:Distances",
        "image_audit": "refeed.families.images.metrics:ImageAudit",
        "attribute_rates": "refeed.families.images.metrics:AttributeRates",
    },
    default={
        "source": "faces",
        "learner": "vae",
        "sampler": "prior",
        "metrics": ["test_loss", "image_audit", "distances"],
    },
    extra="images",
    requires=("torch", "PIL"),
    exhibit="refeed.families.images.exhibit:images",
    exhibit_kind="image",
    exhibit_count=12,
    portrait="refeed.families.images.exhibit:portrait",
)
