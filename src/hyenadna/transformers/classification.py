"""Sequence classification and regression: one score vector per sequence."""

# The library types its methods for itself, differently in each release.

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import SequenceClassifierOutput

from hyenadna.errors import InputError
from hyenadna.transformers.configuration import HyenaDNAConfig
from hyenadna.transformers.padding import last_real
from hyenadna.transformers.pretrained import HyenaDNAModel, HyenaDNAPreTrainedModel


class HyenaDNAForSequenceClassification(HyenaDNAPreTrainedModel):
    """`hyena.` and `score`, a linear map without bias on one position (`config.pooling`)."""

    accepts_loss_kwargs = False

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.hyena = HyenaDNAModel(config)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """`logits` (B, num_labels); with labels also the `loss`.

        input_ids, attention_mask, inputs_embeds, output_hidden_states and return_dict, and the
        errors: see `HyenaDNAModel.forward`. Which position is read: see `HyenaDNAConfig`, pooling;
        with inputs_embeds and no mask the last.

        labels and `config.problem_type`, which is inferred once and stored where it is not set:
        floats (B,) or (B, num_labels) for `regression` (num_labels = 1; mean squared error),
        integers (B,) for `single_label_classification` (cross-entropy), and 0 or 1 of shape
        (B, num_labels), as floats, for `multi_label_classification` (binary cross-entropy).
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
        hidden = base.last_hidden_state
        at = self._position(input_ids, attention_mask, hidden)
        pooled = hidden.gather(1, at[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
        logits = self.score(pooled)
        loss = None if labels is None else self._loss(logits, labels.to(logits.device))
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=base.hidden_states
        )
        return output if named else output.to_tuple()

    def _position(self, ids: Tensor | None, mask: Tensor | None, hidden: Tensor) -> Tensor:
        """Index (B,) of the position to read in each row."""
        pad = self.config.pad_token_id
        last = hidden.new_full((hidden.shape[0],), hidden.shape[1] - 1).long()
        if self.config.pooling == "published":
            if ids is None or pad is None:
                return last
            return ((ids == pad).int().argmax(1) - 1) % hidden.shape[1]
        if mask is not None:
            return last_real(mask != 0)
        return last if ids is None or pad is None else last_real(ids != pad)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.problem_type is None:
            self.config.problem_type = self._infer_problem(labels)
        if self.config.problem_type == "regression":
            return functional.mse_loss(logits.reshape(labels.shape), labels.to(logits.dtype))
        if self.config.problem_type == "single_label_classification":
            return functional.cross_entropy(logits, labels.flatten())
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def _infer_problem(self, labels: Tensor) -> str:
        if self.num_labels == 1:
            return "regression"
        if labels.is_floating_point():
            return "multi_label_classification"
        if labels.ndim > 1 and labels.shape[-1] != 1:
            raise InputError(
                f"model: integer labels of shape {tuple(labels.shape)}; give one class a row, or "
                "floats for several labels a row"
            )
        return "single_label_classification"
