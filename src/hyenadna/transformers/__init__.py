"""HyenaDNA in Hugging Face `transformers`, without remote code.

    import hyenadna.transformers                      # registers the classes, once
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained("FOLDER")
    tokenizer = AutoTokenizer.from_pretrained("FOLDER")

FOLDER is one that `hyenadna.save` or `save_pretrained` wrote, or a published `LongSafari/...-hf`
repository: its `auto_map` is passed over, because these classes are registered for its model type.
They wrap the modules of `hyenadna.model` and compute nothing of their own.

Raises ImportError, in one line, where transformers is missing or older than 4.56.
"""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

try:
    import transformers as _library
except ImportError as error:
    raise ImportError(
        "hyenadna.transformers needs the transformers library: pip install 'hyenadna[transformers]'"
    ) from error

_NEEDED = (4, 56)
if tuple(int(part) for part in _library.__version__.split(".")[:2]) < _NEEDED:
    raise ImportError(
        f"hyenadna.transformers needs transformers >= 4.56, but {_library.__version__} is "
        "installed: pip install -U 'hyenadna[transformers]'"
    )

from transformers import (  # noqa: E402 - after the check, which names the way out
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from hyenadna.transformers.cache import HyenaDNACache  # noqa: E402
from hyenadna.transformers.causal_lm import HyenaDNAForCausalLM  # noqa: E402
from hyenadna.transformers.classification import HyenaDNAForSequenceClassification  # noqa: E402
from hyenadna.transformers.configuration import (  # noqa: E402
    HyenaDNAAttentionConfig,
    HyenaDNAConfig,
)
from hyenadna.transformers.pretrained import HyenaDNAModel, HyenaDNAPreTrainedModel  # noqa: E402
from hyenadna.transformers.tokenization import HyenaDNATokenizer  # noqa: E402

__all__ = [
    "HyenaDNAAttentionConfig",
    "HyenaDNACache",
    "HyenaDNAConfig",
    "HyenaDNAForCausalLM",
    "HyenaDNAForSequenceClassification",
    "HyenaDNAModel",
    "HyenaDNAPreTrainedModel",
    "HyenaDNATokenizer",
]


def _register() -> None:
    for config in (HyenaDNAConfig, HyenaDNAAttentionConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoTokenizer.register(config, slow_tokenizer_class=HyenaDNATokenizer, exist_ok=True)
        for auto, model in (
            (AutoModel, HyenaDNAModel),
            (AutoModelForCausalLM, HyenaDNAForCausalLM),
            (AutoModelForSequenceClassification, HyenaDNAForSequenceClassification),
        ):
            # `auto.register` would insist on one configuration class a model
            auto._model_mapping.register(config, model, exist_ok=True)


_register()
