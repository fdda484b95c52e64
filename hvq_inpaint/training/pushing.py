"""The model of a run on the Hub: pushed when it is done and, if asked, whenever it validates best.

A push that fails is told, and costs the run nothing but the push.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from ..errors import InvalidInputError
from ..hub import Upload, check_access, send, told_in_a_sentence
from ..inpainter import HVQInpainter
from ..pretrained import REPLACED_FILES
from .options import TrainingOptions


class Pushes:
    """What a run pushes; only its main process has one.

    To be entered: at the end of the block what is still on its way has arrived or failed.

    Args:
        options: of any of the run's stages.

    Raises:
        InvalidInputError: the token, or the repository, is none that can be pushed to: told before hours of training.
    """

    def __init__(self, options: TrainingOptions) -> None:
        assert options.push_to_hub is not None
        self.private = True if options.hub_private else None
        self.repo_id = check_access(options.push_to_hub, self.private)
        self.branch = options.push_best
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="push")
        self._sent: list[tuple[Future[str], str]] = []

    def __enter__(self) -> Pushes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrive()
        self._sender.shutdown()

    def best(self, model: HVQInpainter, stage: str, step: int, figure: str) -> None:
        """Push a model that validates better than those before to the branch for it, while the training goes on.

        Args:
            figure: by which it is better, for the commit's message.
        """
        if self.branch is None:
            return
        message = f"Stage {stage}, step {step}: {figure}"
        facts = {
            "model_id": self.repo_id,
            "training": f"Not finished: the best so far. {message}. Load it with `revision={self.branch!r}`.",
        }
        try:
            folder = Path(tempfile.mkdtemp(prefix="hvq-inpaint-push-"))
            try:
                model.save_pretrained(folder, model_card_kwargs=facts)
            except InvalidInputError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except (InvalidInputError, OSError) as error:
            _warn(message, error)
            return
        upload = Upload(
            self.repo_id,
            {path.name: path for path in sorted(folder.iterdir())},
            message,
            branch=self.branch,
            replaced=REPLACED_FILES,
            keeps_card=False,
        )
        # One after the other, or an older one might come last.
        self._sent.append((self._sender.submit(_send_and_remove, upload, folder), message))

    def _arrive(self) -> None:
        """Wait for what is on its way, and tell what failed, whatever it met."""
        for future, message in self._sent:
            if (error := future.exception()) is not None:
                _warn(message, error)
        self._sent.clear()

    def final(self, folder: Path) -> str:
        """Push the model that a run ended with, with a picture of what it does on its card.

        Args:
            folder: of the model, which is complete.

        Returns:
            The address of the commit.

        Raises:
            InvalidInputError: it could not be pushed; the message says how to do it later.
        """
        from ..publishing.model_folder import model_upload, stage_model, write_card  # slow to import

        self._arrive()
        try:
            with told_in_a_sentence(self.repo_id, is_sent=True), tempfile.TemporaryDirectory() as temporary:
                write_card(folder)
                stage_model(folder, Path(temporary), self.repo_id)
                message = "Push the model of a finished run"
                return send(model_upload(Path(temporary), self.repo_id, message=message, private=self.private))
        except (InvalidInputError, OSError) as error:
            raise InvalidInputError(
                f"The model is complete in {folder}, and was not pushed: {error} Push it with 'python -m hvq_inpaint "
                f"push model {self.repo_id} --model {folder} --send'."
            ) from None


def _send_and_remove(upload: Upload, folder: Path) -> str:
    try:
        return send(upload)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _warn(message: str, error: BaseException) -> None:
    print(f"warning: the model was not pushed ({message}): {error}", file=sys.stderr)
