"""pellucid summary: names of models, files and run directories."""

from __future__ import annotations

import pytest

import pellucid as pl

pytestmark = pytest.mark.capability("C9", "H34")


def test_a_model_by_name(cli):
    code, out, err = cli("summary", "lesson2")
    assert (code, err) == (0, "")
    assert out == str(pl.summarize(pl.models.create("lesson2", (1, 28, 28), 10))) + "\n"
    assert "93,322" in out


def test_input_shape(cli):
    assert "3x32x32" in cli("summary", "resnet8").out
    assert "3x20x24" in cli("summary", "lesson1", "--input", "3x20x24").out


def test_a_trained_model(cli, trained):
    by_run = cli("summary", trained)
    assert by_run.code == 0
    assert "1x8x8" in by_run.out
    assert cli("summary", trained / "model.safetensors").out == by_run.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lesson22",), 'error: unknown model "lesson22"; did you mean "lesson2"?'),
        (("gone.safetensors",), "error: there is no model gone.safetensors; pellucid train writes one"),
        (("lesson2", "--input", "28x28"), "error: --input must be CHANNELSxHEIGHTxWIDTH such as 1x28x28, got '28x28'"),
        (("lesson2", "--input", "1x4x4"), "error: "),
        (("lesson2", "--input", "1x0x4"), "error: "),
    ],
)
def test_errors(cli, words, message):
    code, out, err = cli("summary", *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(message)


def test_a_trained_model_knows_its_input(cli, trained):
    code, _, err = cli("summary", trained, "--input", "1x8x8")
    assert (code, err) == (1, "error: --input is for names of models; a trained model knows its own input\n")


@pytest.mark.capability("H22")
def test_the_program_of_the_compiled_engine(cli):
    code, out, err = cli("summary", "resnet8", "--program")
    assert (code, err) == (0, "")
    assert "training step: frame of" in out
    assert "prediction: frame of" in out
    # Each of the nine batch norms ends a stage on the way there and one on the way back.
    training = out[: out.index("prediction:")]
    assert training.count("over images") == 19
    assert training.count("combine_moments") == 9
    assert "gradients and update, over blocks" in training
    assert "combine_moments" not in out[out.index("prediction:") :]
