"""Small language models on stories: GPT-2 and Llama, on a grammar or on the user's own text, from scratch or from given weights."""

from refeed.core.protocols import Family

FAMILY = Family(
    name="language",
    about="transformers trained from scratch on stories: a grammar with exact probabilities, or any text",
    sources={
        "story-grammar": "refeed.families.language.source:StoryGrammar",
        "text": "refeed.families.language.source:Text",
        "outline": "refeed.families.language.outline:Outline",
    },
    learners={
        "gpt2": "refeed.families.language.learner:GPT2",
        "llama": "refeed.families.language.learner:Llama",
        "causal": "refeed.families.language.learner:Causal",
        "gpt2-9m": "refeed.families.language.presets:gpt2_9m",
        "llama-12m": "refeed.families.language.presets:llama_12m",
        "llama-42m": "refeed.families.language.presets:llama_42m",
        "llama-126m": "refeed.families.language.presets:llama_126m",
    },
    samplers={"ancestral": "refeed.families.language.sampler:Ancestral"},
    metrics={
        "cross_entropy": "refeed.families.language.metrics:CrossEntropy",
        "grammar": "refeed.families.language.metrics:GrammarCheck",
        "sample_audit": "refeed.families.language.metrics:SampleAudit",
        "text": "refeed.families.language.text_metrics:TextStatistics",
        "mauve": "refeed.families.language.mauve:Mauve",
        "learning_curve": "refeed.families.language.text_metrics:LearningCurve",
        "earlier_rows": "refeed.families.language.text_metrics:EarlierRows",
        "near_copies": "refeed.families.language.text_metrics:NearCopies",
    },
    default={
        "source": "story-grammar",
        "learner": "llama",
        "sampler": "ancestral",
        "metrics": ["cross_entropy", "sample_audit"],
    },
    extra="language",
    requires=("torch", "transformers", "tokenizers", "safetensors"),
    exhibit="refeed.families.language.exhibit:stories",
    decode="refeed.families.language.exhibit:decode",
    costs="refeed.families.language.costs:costs",
    calibrate="refeed.families.language.calibration:calibrate",
)
