"""A run pushes its model at the end and, if asked, at each best validation; a push that fails costs nothing else."""

from __future__ import annotations

from pathlib import Path

import hub_scenarios as scenarios
import pytest
from accelerate.state import AcceleratorState
from fake_hub import FakeHub
from hub_client import Client

from hvq_inpaint import HVQInpainter, InvalidInputError
from hvq_inpaint.training import pushing, trainer
from hvq_inpaint.training.command_line import parse_options


def arguments(photographs: Path, output: Path, repo_id: str, *more: str) -> list[str]:
    """A run of one stage, that validates twice."""
    common = "--stage autoencoder --preset tiny --steps 8 --batch-size 2 --crop-size 32 --mask-size 32 --workers 0"
    common += " --quantization-warmup 2 --learning-rate-warmup 1 --mixed-precision no --log-with none"
    common += " --validation-images 2 --validation-size 32 --validation-every 4"
    sets = ["--dataset", str(photographs), "--validation", str(photographs), "--output", str(output)]
    return [*common.split(), *sets, "--push-to-hub", repo_id, *more]


def test_a_run_pushes_its_model_with_a_card_of_how_it_was_trained(
    hub: FakeHub, owner: Client, repo_id: str, image_folder: Path, tmp_path: Path
) -> None:
    options = arguments(image_folder, tmp_path / "run", repo_id, "--hub-private")
    status, output, error = owner.train(options)
    assert status == 0, error
    assert f"Pushed: {hub.endpoint}/{repo_id}/commit/{hub.commits(repo_id)[0][0]}" in output
    assert hub.is_private(repo_id)
    own = scenarios.digest(HVQInpainter.from_pretrained(tmp_path / "run" / "autoencoder" / "model"))
    assert owner.call(scenarios.load, repo_id) == own
    card = hub.files(repo_id)["README.md"].decode()
    assert "Stage autoencoder: 8 steps of 2 images" in card and "`--dataset photographs`" in card
    assert "held-out images of 32 pixels: " in card and f'from_pretrained("{repo_id}")' in card
    assert str(tmp_path) not in card and "samples.jpg" in hub.files(repo_id)
    assert set(hub.repositories["model", repo_id].references) == {"refs/heads/main"}
    # Done once more, it is only pushed, and there is nothing to push.
    commits = hub.commits(repo_id)
    status, output, error = owner.train([*options, "--resume"])
    assert status == 0 and "is done" in output and hub.commits(repo_id) == commits, error


def test_each_best_model_is_pushed_to_a_branch(
    hub: FakeHub, owner: Client, repo_id: str, image_folder: Path, tmp_path: Path
) -> None:
    status, _, error = owner.train(arguments(image_folder, tmp_path / "run", repo_id, "--push-best"))
    assert status == 0, error
    messages = [message for _, message in hub.commits(repo_id, branch="best")]
    assert any(message.startswith("Stage autoencoder, step 4: oracle whole psnr ") for message in messages)
    assert "Not finished: the best so far." in hub.files(repo_id, "best")["README.md"].decode()
    owner.call(scenarios.load, repo_id, revision="best")
    assert hub.commits(repo_id)[0][1] == "Push the model of a finished run"


def test_a_push_that_fails_loses_nothing(
    hub: FakeHub, owner: Client, repo_id: str, image_folder: Path, tmp_path: Path
) -> None:
    hub.fail("*/commit/*", 500, 50)
    options = arguments(image_folder, tmp_path / "run", repo_id, "--push-best", "tries")
    status, output, error = owner.train(options)
    assert status == 1
    folder = tmp_path / "run" / "autoencoder" / "model"
    assert f"Stage autoencoder is done: {folder}." in output
    assert "warning: the model was not pushed (Stage autoencoder, step 4: oracle whole psnr" in error
    (last,) = [line for line in error.splitlines() if line.startswith("error:")]
    assert f"The model is complete in {folder}, and was not pushed: The Hub refuses" in last
    assert f"push model {repo_id} --model {folder} --send" in last
    hub.reset()
    assert owner.run(["push", "model", repo_id, "--model", str(folder), "--send"])[0] == 0
    assert owner.call(scenarios.load, repo_id) == scenarios.digest(HVQInpainter.from_pretrained(folder))


def test_whatever_a_push_meets_costs_the_run_nothing_else(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    met = iter([PermissionError("no"), KeyError("strange"), OSError(28, "No space left on device")])

    def send(*_: object) -> str:
        raise next(met)

    monkeypatch.setattr(pushing, "check_access", lambda repo_id, private: repo_id)
    monkeypatch.setattr(pushing, "send", send)
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(InvalidInputError, match=r"is complete in .* was not pushed: .*(No space left|disk is full)"):
        trainer.run(
            parse_options(arguments(image_folder, tmp_path, "a/b", "--push-best", "--steps", "8", "--seed", "5"))
        )
    error = capsys.readouterr().err
    assert "PermissionError" in error or "): no" in error
    HVQInpainter.from_pretrained(tmp_path / "autoencoder" / "model")


def test_what_can_t_be_pushed_to_is_told_before_anything_is_trained(
    hub: FakeHub, owner: Client, stranger: Client, repo_id: str, image_folder: Path, tmp_path: Path
) -> None:
    hub.create(repo_id.replace("tester", "somebody"), {})
    for client, name, message in [
        (owner, repo_id.replace("tester", "somebody"), "The token may not do this with somebody/"),
        (stranger, repo_id, "The Hub needs a token"),
        (owner, "nobody/model", "The token may not do this with nobody/model"),
        (owner, "a b", "is not the id of a repository"),
    ]:
        status, _, error = client.train(arguments(image_folder, tmp_path / "run", name))
        assert status == 1 and message in error
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--push-best"], "--push-best needs the repository"),
        (["--push-best", "--push-to-hub", "a/b"], "--push-best needs images"),
        (["--push-to-hub", "a/b", "--hub-token", "x"], "A token does not belong on a command line"),
    ],
)
def test_options_that_do_not_fit_are_refused(more: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_options(["--stage", "all", "--dataset", "d", "--output", "o", *more])
