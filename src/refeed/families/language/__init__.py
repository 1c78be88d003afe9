"""Small language models on stories: GPT-2 and Llama, trained from scratch, on a grammar or on the user's own text."""

from refeed.core.protocols import Family

FAMILY = Family(
    name="language",
    about="transformers trained from scratch on stories: a grammar with exact probabilities, or any text",
    sources={
        "story-grammar": "refeed.families.language.source:StoryGrammar",
        "text": "refeed.families.language.source:Text",
    },
    learners={
        "gpt2": "refeed.families.language.learner:GPT2",
        "llama": "refeed.families.language.learner:Llama",
    },
    samplers={"ancestral": "refeed.families.language.sampler:Ancestral"},
    metrics={
        "cross_entropy": "refeed.families.language.metrics:CrossEntropy",
        "grammar": "refeed.families.language.metrics:GrammarCheck",
        "sample_audit": "refeed.families.language.metrics:SampleAudit",
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
)
