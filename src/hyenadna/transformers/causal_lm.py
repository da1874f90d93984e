"""The language model: next-token logits, its loss, and `generate`."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutput

from hyenadna.alphabet import BASES, IGNORED, PAD
from hyenadna.checkpoint.layouts import EMBEDDINGS, HEAD, file_name
from hyenadna.errors import InputError
from hyenadna.transformers.configuration import HyenaDNAConfig
from hyenadna.transformers.padding import packing
from hyenadna.transformers.pretrained import HyenaDNAModel, HyenaDNAPreTrainedModel

_TABLE: Final = file_name(EMBEDDINGS, "hf")


class HyenaDNAForCausalLM(HyenaDNAPreTrainedModel, GenerationMixin):
    """`hyena.` and `lm_head`, the head tied to the token table or of its own.

    `generate` computes every step from the whole sequence (there is no cache), and by default only
    produces A, C, G and T: the other ids are in its `suppress_tokens`. `suppress_tokens=[]` lets
    them in.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {HEAD: _TABLE}
    accepts_loss_kwargs = True  # the Trainer may say how many targets a whole step has

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        width = config.model_config().padded_vocab_size
        self.hyena = HyenaDNAModel(config)
        self.lm_head = nn.Linear(config.d_model, width, bias=False)
        self.register_load_state_dict_pre_hook(_fill_tied_head)
        self.post_init()
        self._after_loading()

    def _after_loading(self) -> None:
        chosen = self.generation_config
        chosen.use_cache = False
        if chosen.pad_token_id is None:
            chosen.pad_token_id = PAD
        if chosen.suppress_tokens is None:
            width = self.lm_head.out_features
            chosen.suppress_tokens = [token for token in range(width) if token not in BASES]

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the head."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """`logits` (B, L, V), float32, of the next token; with labels also the `loss`.

        input_ids, attention_mask, inputs_embeds, output_hidden_states and return_dict, and the
        errors: see `HyenaDNAModel.forward`; the logits at padding are 0. labels: ids (B, L), as a
        rule the input_ids themselves; they are shifted in here, and -100 counts for nothing, nor
        does padding. The loss is in nats per counted target, over all V classes.
        num_items_in_batch: divide by this in place of the number of counted targets.
        logits_to_keep: only the logits of so many last positions (0: all), without a loss.
        use_cache is for `generate`, which passes it; there is no cache.
        """
        named = self.config.return_dict if return_dict is None else return_dict
        base = self.hyena(
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self._logits(base.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            if logits.shape[1] != labels.shape[1]:
                raise InputError(
                    f"model: labels have {labels.shape[1]:,} positions, the logits "
                    f"{logits.shape[1]:,}; give a label for each token and no logits_to_keep"
                )
            loss = next_token_loss(logits, labels, attention_mask, num_items_in_batch)
        output = CausalLMOutput(loss=loss, logits=logits, hidden_states=base.hidden_states)
        return output if named else output.to_tuple()

    def _logits(self, hidden: Tensor) -> Tensor:
        """As `HyenaDNA.logits`, through the module, so that adapters on it have their effect."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = self.lm_head(hidden.to(self.lm_head.weight.dtype))
        return logits if logits.dtype == torch.float64 else logits.float()

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        logits_to_keep: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of the next step of `generate`: always the whole sequence."""
        inputs: dict[str, Any] = {
            "attention_mask": attention_mask,
            "logits_to_keep": logits_to_keep or 0,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        if inputs_embeds is None:
            inputs["input_ids"] = input_ids
        else:  # a prompt of embeddings; input_ids are what has been generated after it
            grown = self.get_input_embeddings()(input_ids)
            inputs["inputs_embeds"] = torch.cat([inputs_embeds, grown], dim=1)
        return inputs

    def _validate_generated_length(
        self, generation_config: Any, input_ids_length: int, has_default_max_length: bool
    ) -> None:
        super()._validate_generated_length(
            generation_config, input_ids_length, has_default_max_length
        )
        longest = self.config.max_seq_len
        if generation_config.max_length > longest:
            raise InputError(
                f"generate: {generation_config.max_length:,} tokens in all are asked for, "
                f"{input_ids_length:,} of them given, but this model reads {longest:,} "
                f"(max_seq_len); ask for at most max_new_tokens={longest - input_ids_length:,} or "
                "shorten the prompt"
            )


def _fill_tied_head(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """A saved tied model has no head of its own; torch's `load_state_dict` would miss it."""
    if module.config.tie_word_embeddings and prefix + _TABLE in state:
        state.setdefault(prefix + HEAD, state[prefix + _TABLE])


def next_token_loss(
    logits: Tensor,
    labels: Tensor,
    attention_mask: Tensor | None = None,
    count: Tensor | int | None = None,
) -> Tensor:
    """Mean cross-entropy in nats of each token given those before it, a scalar.

    logits: (B, L, V). labels: (B, L), -100 where a token counts for nothing. attention_mask: as for
    the model; a pair of tokens counts when both are real. count: divide the sum by this in place of
    the number of targets that count.
    """
    labels = labels.to(logits.device)
    packed = packing(attention_mask, labels.shape)
    if packed is not None:  # neighbours in the sequence, whatever stands between them in the batch
        logits = packed.pack(logits)
        labels = packed.pack(labels).masked_fill(~packed.real, IGNORED)
    total = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1),
        labels[:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="mean" if count is None else "sum",
    )
    return total if count is None else total / count
