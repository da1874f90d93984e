"""The language model: next-token logits, its loss, and `generate`."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging

from hyenadna.alphabet import BASES, IGNORED, PAD
from hyenadna.checkpoint.layouts import EMBEDDINGS, HEAD, file_name
from hyenadna.errors import InputError
from hyenadna.transformers.cache import NAME, OLD_NAME, HyenaDNACache, one_cache
from hyenadna.transformers.configuration import HyenaDNAConfig
from hyenadna.transformers.padding import packing
from hyenadna.transformers.pretrained import (
    HyenaDNAModel,
    HyenaDNAPreTrainedModel,
    only_input,
    refuse_attentions,
)

_TABLE: Final = file_name(EMBEDDINGS, "hf")
_logger = logging.get_logger(__name__)


class HyenaDNAForCausalLM(HyenaDNAPreTrainedModel, GenerationMixin):
    """`hyena.` and `lm_head`, the head tied to the token table or of its own.

    `generate` reads the prompt once and then each new token alone, with a `HyenaDNACache`, exact up
    to rounding; `use_cache=False` computes every step from the whole sequence, the slow twin. So
    does a model with hooks that steps would pass over (a warning says so), and a request for hidden
    states, which come for the whole sequence at every step. By default only A, C, G and T come out:
    the other ids are in `suppress_tokens`. `suppress_tokens=[]` lets them in.
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
        if chosen.use_cache is None:
            chosen.use_cache = True
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
        past_key_values: HyenaDNACache | None = None,
        cache: HyenaDNACache | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """`logits` (B, L, V), float32, of the next token; with labels also the `loss`.

        input_ids, attention_mask, inputs_embeds, output_hidden_states and return_dict, and the
        errors: see `HyenaDNAModel.forward`; the logits at padding are 0. labels: ids (B, L), as a
        rule the input_ids themselves; they are shifted in here, and -100 counts for nothing, nor
        does padding. The loss is in nats per counted target, over all V classes.
        num_items_in_batch: divide by this in place of the number of counted targets.
        logits_to_keep: only the logits of so many last positions (0: all), without a loss.

        use_cache: also return `past_key_values`, a `HyenaDNACache` with room for 1,000 tokens more
        at first; since transformers 5.24 it is called `cache` there. past_key_values or cache, in
        any release: go on from such a cache, which moves: input_ids are those that it has not
        read, the mask may cover all. There are no gradients, dropout or hidden states with
        a cache: where these are wanted use_cache does nothing, and a cache given is an InputError.
        """
        named = self.config.return_dict if return_dict is None else return_dict
        cache = one_cache(past_key_values, cache)
        if use_cache or cache is not None:
            why_not = self._why_no_cache(output_hidden_states, inputs_embeds)
            cache = self._cache_of_pass(cache, why_not)
        states = None
        if cache is None:
            base = self.hyena(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                output_attentions=output_attentions,
                output_hidden_states=output_hidden_states,
                return_dict=True,
            )
            logits = self.head_logits(base.last_hidden_state[:, -logits_to_keep:])
            states = base.hidden_states
        else:
            given = only_input(input_ids, inputs_embeds)
            refuse_attentions(output_attentions)
            logits = cache.read(given, attention_mask, logits_to_keep)
        loss = None
        if labels is not None:
            if logits.shape[1] != labels.shape[1]:
                raise InputError(
                    f"model: labels have {labels.shape[1]:,} positions, the logits "
                    f"{logits.shape[1]:,}; give a label for each token and no logits_to_keep"
                )
            mask = None if attention_mask is None else attention_mask[:, -labels.shape[1] :]
            loss = next_token_loss(logits, labels, mask, num_items_in_batch)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=states, **{NAME: cache}
        )
        return output if named else output.to_tuple()

    def head_logits(self, hidden: Tensor) -> Tensor:
        """As `HyenaDNA.logits`, through the module, so that adapters on it have their effect."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = self.lm_head(hidden.to(self.lm_head.weight.dtype))
        return logits if logits.dtype == torch.float64 else logits.float()

    def whole_logits(self, tokens: Tensor, mask: Tensor | None, keep: int) -> Tensor:
        """Logits (B, k, V) of the last `keep` positions (0: all) of ids, or of embedded tokens."""
        kind = "inputs_embeds" if tokens.is_floating_point() else "input_ids"
        base = self.hyena(**{kind: tokens}, attention_mask=mask, return_dict=True)
        return self.head_logits(base.last_hidden_state[:, -keep:])

    def _why_no_cache(self, hidden_states: bool | None, embedded: Tensor | None) -> str | None:
        """What is wanted that a cache does not give, if anything."""
        if self.config.output_hidden_states if hidden_states is None else hidden_states:
            return "hidden states are asked for, which it does not keep"
        if not torch.is_grad_enabled():  # asked first: all parameters take longer than a step
            return None
        learnt = [*self.parameters(), *([] if embedded is None else [embedded])]
        if any(p.requires_grad for p in learnt):
            return "gradients are wanted, which it has not; call the model under torch.no_grad()"
        return None

    def _cache_of_pass(self, given: Any, why_not: str | None) -> HyenaDNACache | None:
        if given is not None:
            self._check_cache(given)
            if why_not is not None:
                raise InputError(f"model: a cache is given, but {why_not}")
            cache: HyenaDNACache = given
            return cache
        if why_not is not None:
            _logger.warning_once(f"model: no cache is made: {why_not}")
            return None
        return HyenaDNACache(self)

    def _check_cache(self, cache: Any) -> None:
        other = isinstance(cache, HyenaDNACache)
        if not other or cache.decoder.backbone is not self.hyena.backbone:
            raise InputError(
                f"model: the cache is a {type(cache).__name__}"
                f"{' of another model' if other else ''}; give a HyenaDNACache(model), or what "
                "this model returned"
            )

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: HyenaDNACache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache_position: Tensor | None = None,
        next_sequence_length: int | None = None,
        logits_to_keep: int | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: HyenaDNACache | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of the next step of `generate`: what the cache has not read, or everything.

        cache_position, next_sequence_length: how older and newer releases say which tokens are new.
        """
        inputs: dict[str, Any] = {
            "attention_mask": attention_mask,
            "logits_to_keep": logits_to_keep or 0,
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        cache = one_cache(past_key_values, cache)
        if cache is not None:
            # always the old name too, by which peft (0.21) sees whether its prompt has been read
            inputs |= {OLD_NAME: cache, NAME: cache}
            past = cache.get_seq_length()
            if inputs_embeds is not None and not past:
                inputs["inputs_embeds"] = inputs_embeds
            else:
                count = next_sequence_length
                if cache_position is not None:  # empty where the cache had read the whole prompt
                    count = len(cache_position) or input_ids.shape[1] - past
                start = 0 if count is None else input_ids.shape[1] - count
                inputs["input_ids"] = input_ids[:, start:]
        elif inputs_embeds is None:
            inputs["input_ids"] = input_ids
        else:  # a prompt of embeddings; input_ids are what has been generated after it
            grown = self.get_input_embeddings()(input_ids)
            inputs["inputs_embeds"] = torch.cat([inputs_embeds, grown], dim=1)
        return inputs

    def _prepare_cache_for_generation(
        self,
        generation_config: Any,
        model_kwargs: dict[str, Any],
        how: Any,
        batch_size: int,
        max_cache_length: int,
    ) -> None:
        """Put a cache with room for everything into `model_kwargs`, unless one is there.

        how: the generation mode, or in the oldest release the assistant.
        """
        mask = model_kwargs.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            raise InputError(
                "generate: padding behind a prompt, where new bases would follow it; put it in "
                "front: tokenizer(..., padding_side='left')"
            )
        embedded = model_kwargs.get("inputs_embeds")
        if embedded is not None:
            self._check_total(max_cache_length + 1, embedded.shape[1])
        given = one_cache(model_kwargs.pop(OLD_NAME, None), model_kwargs.pop("cache", None))
        if given is not None:
            self._check_cache(given)
            if generation_config.use_cache is False:
                raise InputError("generate: a cache with use_cache=False; leave one out")
            model_kwargs[NAME] = given
            given._is_user_defined = True  # so that the library leaves no token too many in it
            return
        if generation_config.cache_implementation is not None:
            _logger.warning_once("generate: cache_implementation is ignored; there is one cache")
        why_not = self._why_no_cache(generation_config.output_hidden_states, embedded)
        cache = None
        if generation_config.use_cache is not False and why_not is None:
            cache = self._cache_or_warning(max_cache_length)
        generation_config.use_cache = cache is not None
        if cache is not None:
            model_kwargs[NAME] = cache
            if _goes_back(generation_config, how):
                cache.activate_past_recording()

    def _cache_or_warning(self, max_length: int) -> HyenaDNACache | None:
        try:
            return HyenaDNACache(self, max_length)
        except InputError as error:
            _logger.warning_once(f"generate: every step reads the whole sequence: {error}")
            return None

    def _validate_generated_length(
        self, generation_config: Any, input_ids_length: int, has_default_max_length: bool
    ) -> None:
        super()._validate_generated_length(
            generation_config, input_ids_length, has_default_max_length
        )
        self._check_total(generation_config.max_length, input_ids_length)

    def _check_total(self, total: int, given: int) -> None:
        longest = self.config.max_seq_len
        if total > longest:
            raise InputError(
                f"generate: {total:,} tokens in all are asked for, "
                f"{given:,} of them given, but this model reads {longest:,} "
                f"(max_seq_len); ask for at most max_new_tokens={longest - given:,} or "
                "shorten the prompt"
            )


def _goes_back(generation_config: Any, how: Any) -> bool:
    """Whether tokens are tried out and taken back: assisted decoding, on either side of it."""
    return bool(
        generation_config.is_assistant
        or generation_config.prompt_lookup_num_tokens
        or how == GenerationMode.ASSISTED_GENERATION
        or isinstance(how, PreTrainedModel)
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
