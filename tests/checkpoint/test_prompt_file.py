"""A prompt in a file: small, for one model, and of peft's layout where that can hold it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyenadna.checkpoint.load import load
from hyenadna.checkpoint.prompt_file import (
    load_prompt,
    prompt_digest,
    read_prompt,
    save_prompt,
)
from hyenadna.checkpoint.prompt_peft import export_peft, import_peft
from hyenadna.checkpoint.save import save
from hyenadna.config import ModelConfig
from hyenadna.data.labelled_data import Task
from hyenadna.errors import InputError
from hyenadna.label_words import label_words
from hyenadna.model.backbone import HyenaDNA
from hyenadna.model.digest import function_digest, weights_digest
from hyenadna.model.prompting.prompted import PromptedModel

TASK = Task("classes", ("no", "yes"))
ROWS = torch.randint(7, 11, (3, 20), generator=torch.Generator().manual_seed(3))


def base(seed: int = 1) -> HyenaDNA:
    torch.manual_seed(seed)
    return HyenaDNA(ModelConfig(d_model=16, n_layer=2, max_seq_len=96)).eval()


def prompted(model: HyenaDNA, *, spell: bool = True, **options) -> PromptedModel:
    words = label_words(TASK.names) if spell else None
    model = PromptedModel(model, TASK, tokens=options.pop("tokens", 5), words=words, **options)
    torch.nn.init.normal_(model.prompt)
    return model.eval()


@pytest.mark.parametrize("options", [{}, {"spell": False, "pooling": "attention"},
                                     {"spell": False, "strands": "concatenate"}])  # fmt: skip
def test_saved_moved_and_loaded_it_says_the_same(tmp_path, options):
    model = base()
    before = weights_digest(model)
    tuned = prompted(model, **options)
    path = tmp_path / "a" / "prompt.safetensors"
    save_prompt(tuned, path, base="RUN", max_length=20, settings={"seed": 3})
    (tmp_path / "b").mkdir()
    moved = path.rename(tmp_path / "b" / "other.safetensors")
    save(model, tmp_path / "copy")
    again = load_prompt(moved, load(tmp_path / "copy"))
    torch.testing.assert_close(again(ROWS), tuned(ROWS), rtol=0, atol=0)
    assert again.task.settings == {"seed": 3} and again.task.base == "RUN"
    assert weights_digest(model) == before
    assert function_digest(again.model) == function_digest(model)
    assert moved.stat().st_size < 10_000


def test_another_model_is_refused_and_another_layout_of_the_same_is_not(tmp_path):
    model = base()
    path = tmp_path / "p.safetensors"
    save_prompt(prompted(model), path, base="mine")
    with pytest.raises(InputError, match=r"another model \(mine\)"):
        load_prompt(path, base(seed=2))
    untied = HyenaDNA(model.config.replace(tie_word_embeddings=False, embed_dropout=0.3))
    untied.load_state_dict(model.state_dict() | {"lm_head.weight": model.head_weight})
    assert function_digest(untied) == function_digest(model)
    assert weights_digest(untied) != weights_digest(model)
    load_prompt(path, untied)


def test_damaged_files_are_told(tmp_path):
    model, path = base(), tmp_path / "p.safetensors"
    with pytest.raises(InputError, match="no such prompt file"):
        read_prompt(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no prompt file, or damaged"):
        read_prompt(path)
    save_file({"prompt": torch.zeros(2, 16)}, path)
    with pytest.raises(InputError, match="says nothing of a prompt"):
        read_prompt(path)
    save_prompt(prompted(model), path)
    saved, tensors = read_prompt(path)
    text = json.dumps({"format": 1, **{k: getattr(saved, k) for k in saved.__dataclass_fields__}})
    good = json.loads(text)
    for change, message in [
        ({"format": 9}, "format is 9"),
        ({"kind": "x"}, "kind is 'x'"),
        ({"names": []}, "names no classes"),
        ({"pooling": "x"}, "pooling"),
        ({"strands": None}, "strands"),
        ({"base_digest": None}, "for which model"),
    ]:
        save_file(tensors, path, metadata={"prompt": json.dumps(good | change)})
        with pytest.raises(InputError, match=message):
            load_prompt(path, model)
    save_file(tensors | {"x": torch.zeros(1)}, path, metadata={"prompt": text})
    with pytest.raises(InputError, match=r"x is \(1,\), where nothing belongs"):
        load_prompt(path, model)
    save_file({"x": torch.zeros(1)}, path, metadata={"prompt": text})
    with pytest.raises(InputError, match="holds no vectors"):
        load_prompt(path, model)


def test_there_and_back_through_peft(tmp_path):
    model, path = base(), tmp_path / "p.safetensors"
    tuned = prompted(model)
    with torch.no_grad():
        tuned.prior.copy_(torch.tensor([0.3, -0.7]))
    save_prompt(tuned, path, base="RUN", max_length=16, settings={"seed": 1})
    export_peft(path, tmp_path / "peft")
    assert set(load_file(tmp_path / "peft" / "adapter_model.safetensors")) == {"prompt_embeddings"}
    import_peft(tmp_path / "peft", tmp_path / "back.safetensors", model, base="RUN")
    back = load_prompt(tmp_path / "back.safetensors", model)
    assert torch.equal(back(ROWS), tuned(ROWS)) and back.task.settings == {"seed": 1}
    assert back.task.max_length == 16
    same = tuned.words
    import_peft(tmp_path / "peft", tmp_path / "same.safetensors", model, words=same)
    assert torch.equal(load_prompt(tmp_path / "same.safetensors", model)(ROWS), tuned(ROWS))
    with pytest.raises(InputError, match="tuned for the label words no=A,yes=N"):
        import_peft(
            tmp_path / "peft", tmp_path / "no.safetensors", model, words=label_words(["b", "a"])
        )
    with pytest.raises(InputError, match="exists"):
        export_peft(path, tmp_path / "peft")
    with pytest.raises(InputError, match="another model"):
        import_peft(tmp_path / "peft", tmp_path / "no.safetensors", base(seed=2))
    save_prompt(prompted(model, spell=False), path)
    with pytest.raises(InputError, match="read by a head"):
        export_peft(path, tmp_path / "more")
    own = tmp_path / "peft" / "hyenadna_prompt.json"
    values = json.loads(own.read_text())
    for text, message in [
        (json.dumps(values | {"prior": [1]}), "prior is no list of 2 numbers"),
        ("[]", "holds no JSON object"),
        ("{", "cannot be read"),
    ]:
        own.write_text(text)
        with pytest.raises(InputError, match=message):
            import_peft(tmp_path / "peft", tmp_path / "no.safetensors", model)
    own.unlink()
    with pytest.raises(InputError, match="which classes"):
        import_peft(tmp_path / "peft", tmp_path / "no.safetensors", model)
    words = label_words(["b", "a"])
    import_peft(tmp_path / "peft", tmp_path / "named.safetensors", model, words=words)
    assert load_prompt(tmp_path / "named.safetensors", model).task.names == ("b", "a")
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InputError, match="'LORA'"):
        import_peft(tmp_path / "peft", tmp_path / "no.safetensors", model)


def test_a_prompt_has_one_short_name_wherever_it_lies(tmp_path):
    model, path = base(), tmp_path / "p.safetensors"
    tuned = prompted(model)
    save_prompt(tuned, path, base="here", settings={"seed": 1})
    other = path.rename(tmp_path / "q.safetensors")
    assert prompt_digest(load_prompt(other, model)) == prompt_digest(tuned)
    names = {prompt_digest(tuned)}
    for change in (tuned.prompt, tuned.prior):
        with torch.no_grad():
            change[0] += 1
        names.add(prompt_digest(tuned))
    headed = prompted(model, spell=False)
    names.add(prompt_digest(headed))
    with torch.no_grad():
        headed.head.bias[0] += 1
    names.add(prompt_digest(headed))
    assert len(names) == 5
