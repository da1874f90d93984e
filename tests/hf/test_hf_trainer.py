"""The `Trainer`: loss falls, checkpoints resume, the result reads back the same."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from hf_examples import bases, small_config
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import hyenadna
from hyenadna.transformers import (
    HyenaDNAConfig,
    HyenaDNAForCausalLM,
    HyenaDNAForSequenceClassification,
    HyenaDNATokenizer,
)


def arguments(folder, **options):
    settings = {
        "output_dir": str(folder),
        "max_steps": 10,
        "per_device_train_batch_size": 4,
        "learning_rate": 2e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_steps": 5,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    return TrainingArguments(**(settings | options))


def repeats(count=16):
    """Sequences that repeat themselves: learnt in a few steps."""
    rows = [bases(1, seed=i).repeat(24) for i in range(count)]
    return [{"input_ids": row, "labels": row} for row in rows]


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def fresh(**changes):
    torch.manual_seed(0)
    return HyenaDNAForCausalLM(HyenaDNAConfig.from_model_config(small_config(**changes)))


@pytest.mark.parametrize("tied", [True, False])
def test_language_model(tmp_path, tied):
    trainer = Trainer(
        fresh(tie_word_embeddings=tied), arguments(tmp_path / "run"), train_dataset=repeats()
    )
    trainer.train()
    falling = losses(trainer)
    assert falling[0] == pytest.approx(math.log(16), abs=0.3)
    assert falling[-1] < falling[0] - 0.3
    trainer.save_model(str(tmp_path / "out"))
    ids = bases(2, 30)
    trained = trainer.model.eval()
    with torch.no_grad():
        wanted = trained(ids).logits
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert torch.equal(again(ids).logits, wanted)
        torch.testing.assert_close(hyenadna.load(tmp_path / "out")(ids), wanted)


def test_resumed_run_equals_an_unbroken_one(tmp_path, caplog):
    data = repeats()
    unbroken = Trainer(fresh(), arguments(tmp_path / "a"), train_dataset=data)
    unbroken.train()
    resumed = Trainer(fresh(), arguments(tmp_path / "b"), train_dataset=data)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert resumed.state.global_step == 10
    for (name, one), two in zip(
        unbroken.model.named_parameters(), resumed.model.parameters(), strict=True
    ):
        assert torch.equal(one, two), name
    complaints = [r.getMessage() for r in caplog.records if "keys" in r.getMessage()]
    assert complaints == []


def test_accumulated_batches_weigh_each_target_alike(tmp_path):
    """Rows of unlike length: the gradient of 2 x 2 rows is that of 4, as the Trainer promises."""
    rows = [bases(n, seed=n) for n in (30, 4, 12, 6)]
    collate = DataCollatorWithPadding(HyenaDNATokenizer())

    def padded(features):
        batch = collate([{"input_ids": f["input_ids"].tolist()} for f in features])
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return dict(batch)

    ends = []
    for size in (4, 2):
        options = arguments(
            tmp_path / str(size), max_steps=1, per_device_train_batch_size=size, optim="sgd",
            gradient_accumulation_steps=4 // size, max_grad_norm=0.0, learning_rate=1.0,
            save_strategy="no", remove_unused_columns=False,
        )  # fmt: skip
        data = [{"input_ids": row} for row in rows]
        trainer = Trainer(fresh(), options, train_dataset=data, data_collator=padded)
        trainer.train()
        ends.append(trainer.model.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, atol=1e-5, rtol=1e-4)


def test_classifier_with_padding_and_best_checkpoint(tmp_path):
    torch.manual_seed(0)
    config = HyenaDNAConfig.from_model_config(small_config(), num_labels=2)
    tokenizer = HyenaDNATokenizer(model_max_length=34)
    texts = ["A" * n + "C" * (20 - n) for n in range(3, 11)] + ["G" * n for n in range(3, 11)]
    data = [tokenizer(t) | {"labels": i // 8} for i, t in enumerate(texts)]
    trainer = Trainer(
        HyenaDNAForSequenceClassification(config),
        arguments(
            tmp_path, max_steps=20, eval_strategy="steps", eval_steps=5,
            gradient_checkpointing=True, load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
        ),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.3
    prediction = trainer.predict(data)
    assert (prediction.predictions.argmax(-1) == prediction.label_ids).all()
    best = trainer.state.best_model_checkpoint
    again = AutoModelForSequenceClassification.from_pretrained(best)
    with torch.no_grad():
        batch = tokenizer(texts[:2], padding=True, return_tensors="pt")
        wanted = trainer.model.eval()(**batch).logits
        torch.testing.assert_close(again(**batch).logits, wanted, atol=1e-5, rtol=1e-5)
