"""Networks that are saved, loaded and pushed: a folder or a repository with a configuration, weights and a card."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, constants, try_to_load_from_cache
from PIL import Image
from safetensors import SafetensorError
from torch import nn

from .card import CARD_FILE, LIBRARY_NAME, SAMPLES_FILE, CardFacts, make_card, read_metadata
from .config import HVQConfig
from .errors import InvalidInputError
from .execution import find_device
from .hub import Upload, check_access, fetch, send, told_in_a_sentence
from .weights import (
    INDEX_FILE,
    MAX_SHARD_SIZE,
    SINGLE_FILE,
    WEIGHT_FILE,
    check_header,
    load_weights,
    read_json,
    save_weights,
    shapes_of,
    shard_names,
    weight_files,
)

if TYPE_CHECKING:
    from typing_extensions import Self

# What `from_pretrained` takes where no name is given: the bundled model of the project's repository.
DEFAULT_MODEL = "hvq-inpaint/hvq-inpaint-small"

CONFIG_FILE = constants.CONFIG_NAME  # config.json
WHOLE = "HVQInpainter"

# Weights of an earlier push, of which a new one may have fewer or others.
REPLACED_FILES = (SINGLE_FILE, "model-?????-of-?????.safetensors", INDEX_FILE)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class PretrainedModel(nn.Module, PyTorchModelHubMixin, library_name=LIBRARY_NAME):
    """A network whose sizes an `HVQConfig` says.

    Args:
        config: an `HVQConfig`, or its fields as a dict; the preset `paper` if not given.

    Attributes:
        architecture: what `config.json` says that a folder holds.
        prefix: of the network's tensors in the file of an `HVQInpainter`, of which it is a part.
    """

    architecture: ClassVar[str]
    prefix: ClassVar[str] = ""

    def __init__(self, config: HVQConfig | dict[str, Any] | None = None) -> None:
        super().__init__()
        if config is None:
            config = HVQConfig()
        self.config = HVQConfig.from_dict(config) if isinstance(config, dict) else config
        self._loaded_from: _Source | None = None

    # ---------------------------------------------------------------- loading

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """A saved network, in eval mode, from a folder or a repository on the Hub; strict, and from safetensors only.

        Nothing is taken from a folder before its configuration and the headers of its files fit together. A part of an
        `HVQInpainter` is also loaded from the folder or repository of the whole.

        Args:
            pretrained_model_name_or_path: a folder, or `user/name`; None: the project's own model, `DEFAULT_MODEL`.
            revision: a branch, a tag or a commit of a repository; None: its newest commit.
            device: where the network goes, such as `cuda:1`, or `auto`; None: the processor.
            dtype: number format in which the weights are held: float32, or in half of the memory bfloat16 or float16.
                Codebooks and their statistics stay in float32. In what the networks run is said by `precision`.
            token: for the Hub; None: that of `hf auth login` or HF_TOKEN.
            cache_dir: where what is fetched is kept; None: the Hub's own cache.
            local_files_only: take what the cache has, and ask nobody.
            force_download: fetch again what the cache has.

        Raises:
            InvalidInputError: there is no such model, it can't be fetched, or its files do not fit together; the
                message says what to do.
        """
        where = find_device("cpu" if device is None else str(device))
        kind = _dtype(dtype)
        options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        if pretrained_model_name_or_path is None:
            try:
                source = _find(DEFAULT_MODEL, options)
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"{error} It is the model that is taken where none is named: name a folder that holds one, such as "
                    "hub/model in a clone of the project, or another repository on the Hub."
                ) from None
        else:
            source = _find(str(pretrained_model_name_or_path), options)
        config, prefix = cls._fitting(source)
        expected = shapes_of(lambda: cls(config))
        found = check_header(source.weights(options), expected, prefix)
        source = source.with_card(options)
        model = cls(config)
        load_weights(model, found, prefix)
        for part in model.modules():
            if isinstance(part, PretrainedModel):
                part._loaded_from = source
        for parameter in model.parameters():
            parameter.data = parameter.data.to(kind)
        return model.to(where).eval()

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Self:
        """The mixin's way in; that of its own loads what fits, also from pickles."""
        return cls.from_pretrained(model_id, **{name: options[name] for name in options if name != "config"})

    @classmethod
    def _fitting(cls, source: _Source) -> tuple[HVQConfig, str]:
        """The configuration of what is to be loaded, and the prefix of its tensors' names."""
        values = dict(source.config)
        # Models were saved without the name before there were parts.
        there = values.pop("architecture", WHOLE)
        if not set(values) & {field.name for field in dataclasses.fields(HVQConfig)}:
            raise InvalidInputError(
                f"{source.name} is no model of hvq_inpaint: its config.json is that of something else."
            )
        try:
            config = HVQConfig.from_dict(values)
        except InvalidInputError as error:
            raise InvalidInputError(f"The config.json of {source.name} can't be used: {error}") from None
        if there == cls.architecture:
            return config, ""
        if there == WHOLE and cls.prefix:
            return config, cls.prefix
        raise InvalidInputError(
            f"{source.name} holds {there}, no {cls.architecture}: load it with {there}.from_pretrained."
            if there in [model.architecture for model in PretrainedModel.__subclasses__()]
            else f"{source.name} holds {str(there)[:80]!r}, which this version of hvq_inpaint does not know."
        )

    # ---------------------------------------------------------------- saving

    def half_precision_state(self) -> dict[str, torch.Tensor]:
        """The state to publish.

        Weights in float16, codebooks, their statistics and the credibility quantiles in float32.
        """
        weights = {name for name, _ in self.named_parameters()}
        return {name: tensor.half() if name in weights else tensor for name, tensor in self.state_dict().items()}

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        half_precision: bool = False,
        max_shard_size: int | str = MAX_SHARD_SIZE,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Save the network as `config.json`, `model.safetensors` and, unless there is one, a card, `README.md`.

        Each file is there whole or not at all.

        Args:
            save_directory: made if it is not there; what a model there had is replaced.
            half_precision: weights in float16, half the size; see `half_precision_state`.
            max_shard_size: weights beyond this, in bytes or as `5GB`, are written as several files and an index.
            repo_id: for `push_to_hub`; None: the folder's name.
            push_to_hub: push it as well, as the method does, with `push_to_hub_kwargs`.
            model_card_kwargs: what else is known of the model, by the names of `CardFacts`.

        Returns:
            The address of the commit, if it was pushed.

        Raises:
            InvalidInputError: the folder can't be written.
        """
        if push_to_hub_kwargs and not push_to_hub:
            raise TypeError(f"save_pretrained() takes {', '.join(push_to_hub_kwargs)} only with push_to_hub=True.")
        folder = Path(save_directory).expanduser()
        if folder.exists() and not folder.is_dir():
            raise InvalidInputError(f"{folder} is a file; a model needs a folder.")
        facts = model_card_kwargs or {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
                staged = Path(temporary)
                self._save_pretrained(staged, half_precision, max_shard_size)
                if not (folder / CARD_FILE).exists():
                    self.generate_model_card(**facts).save(staged / CARD_FILE)
                names = {path.name for path in staged.iterdir()}
                # The configuration last: weights that it does not fit are refused.
                for name in sorted(names, key=lambda name: (name == CONFIG_FILE, name)):
                    (staged / name).replace(folder / name)
            for path in folder.iterdir():
                if WEIGHT_FILE.fullmatch(path.name) and path.name not in names:
                    path.unlink()
        except OSError as error:
            raise InvalidInputError(f"The model can't be written to {folder}: {error.strerror}.") from None
        if not push_to_hub:
            return None
        sizes = {"half_precision": half_precision, "max_shard_size": max_shard_size}
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=facts, **sizes, **push_to_hub_kwargs)

    def _save_pretrained(
        self, save_directory: Path, half_precision: bool = False, max_shard_size: int | str = MAX_SHARD_SIZE
    ) -> None:
        """Configuration and weights, into a folder that nobody reads yet."""
        from . import __version__

        state = self.half_precision_state() if half_precision else self.state_dict()
        metadata = {
            "library": LIBRARY_NAME,
            "library_version": __version__,
            "architecture": self.architecture,
            "config_version": str(self.config.config_version),
        }
        path = save_directory / CONFIG_FILE
        config = {"architecture": self.architecture, **self.config.to_dict()}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        try:
            save_weights(state, save_directory, metadata, max_shard_size)
        except SafetensorError as error:
            raise InvalidInputError(f"The weights can't be written to {save_directory.parent}: {error}.") from None
        for weights in save_directory.glob("*.safetensors"):
            shutil.copymode(path, weights)  # safetensors lets nobody else read what it writes

    def generate_model_card(self, **facts: Any) -> ModelCard:
        """A card of what is known: the network itself, and `facts` by the names of `CardFacts`.

        The licence of weights that were loaded holds for what became of them, unless another one is given.
        """
        if self._loaded_from is not None:
            facts = {**self._loaded_from.inherited("license" not in facts), **facts}
        parameters = sum(parameter.numel() for parameter in self.parameters())
        return make_card(self.architecture, self.config, parameters, CardFacts(**facts))

    def sample_picture(self) -> tuple[Image.Image, str] | None:
        """What the network makes of the photographs that come with the package, for its card, and a caption."""
        return None

    # ---------------------------------------------------------------- pushing

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
        tag: str | None = None,
        replace_card: bool = False,
        half_precision: bool = False,
        max_shard_size: int | str = MAX_SHARD_SIZE,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Send the network with its card to the Hub, as one commit or not at all; its repository is made if need be.

        Args:
            repo_id: `user/name`, or the name alone for one's own.
            commit_message: None: a general one.
            private: of a repository that is made; None: as the account is set up.
            token: None: that of `hf auth login` or HF_TOKEN.
            branch: made if it is not there; None: `main`.
            create_pr: propose the commit as a pull request.
            tag: name for the commit, such as `v1`.
            replace_card: replace a card that is there; without it, it is kept as it is.
            half_precision: weights in float16, half the size; see `half_precision_state`.
            max_shard_size: weights beyond this, in bytes or as `5GB`, are sent as several files and an index.
            model_card_kwargs: what else is known of the model, by the names of `CardFacts`. Without `samples`, a
                picture is made of what the network does with photographs of the package; None: there is none.

        Returns:
            The address of the commit.

        Raises:
            InvalidInputError: it can't be sent; then nothing has changed there.
        """
        CardFacts(**(model_card_kwargs or {}))  # a name that is none of theirs is told before anything is made
        repo_id = check_access(repo_id, private, token, create_pr)
        facts = {"model_id": repo_id, **(model_card_kwargs or {})}
        with told_in_a_sentence(repo_id, is_sent=True), TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if "samples" not in facts and (sample := self.sample_picture()) is not None:
                picture, facts["samples_caption"] = sample
                picture.save(folder / SAMPLES_FILE, quality=90)
                facts["samples"] = SAMPLES_FILE
            self.save_pretrained(
                folder, half_precision=half_precision, max_shard_size=max_shard_size, model_card_kwargs=facts
            )
            upload = Upload(
                repo_id,
                {path.name: path for path in sorted(folder.iterdir())},
                commit_message or f"Push {self.architecture} by {LIBRARY_NAME}",
                branch=branch or constants.DEFAULT_REVISION,
                replaced=REPLACED_FILES,
                keeps_card=not replace_card,
                private=private,
                create_pr=create_pr,
                tag=tag,
            )
            return send(upload, token)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where a network is loaded from.

    Attributes:
        name: as the caller gave it.
        config: what its config.json holds.
        folder: None for a repository on the Hub.
        commit: of the repository; all files are taken from the same one.
        card: the file of its card, if it has one that can be had.
    """

    name: str
    config: dict[str, Any]
    folder: Path | None = None
    commit: str | None = None
    card: Path | None = None

    def weights(self, options: dict[str, Any]) -> list[Path]:
        """The files of the weights, fetched if need be; `options` as for `fetch`."""
        if self.folder is not None:
            return weight_files(self.folder)
        options = {**options, "revision": self.commit}
        # Without a connection nobody can say that there is no single file.
        if not self._has_only_an_index(options) and (single := fetch(self.name, SINGLE_FILE, **options)):
            return [single]
        index = fetch(self.name, INDEX_FILE, **options)
        if index is None:
            raise InvalidInputError(
                f"The Hub repository {self.name} has no {SINGLE_FILE}: weights are read from safetensors only, never "
                "from pickles (.bin, .pt, .ckpt), which can run any program; ask its owner for safetensors."
            )
        shards = {name: fetch(self.name, name, **options) for name in shard_names(index, self.name)}
        if missing := [name for name, path in shards.items() if path is None]:
            raise InvalidInputError(f"The Hub repository {self.name} lacks {missing[0]}, which its {INDEX_FILE} names.")
        return [path for path in shards.values() if path is not None]

    def _has_only_an_index(self, options: dict[str, Any]) -> bool:
        """Whether the cache holds this commit's index, and no single file."""
        where = {"cache_dir": options["cache_dir"], "revision": self.commit}
        single, index = (try_to_load_from_cache(self.name, name, **where) for name in (SINGLE_FILE, INDEX_FILE))
        return isinstance(index, str) and not isinstance(single, str)

    def with_card(self, options: dict[str, Any]) -> _Source:
        """The same with its card, which says under which licence the weights are; `options` as for `fetch`."""
        if self.folder is not None:
            card = self.folder / CARD_FILE
            return dataclasses.replace(self, card=card) if card.is_file() else self
        try:
            return dataclasses.replace(self, card=fetch(self.name, CARD_FILE, **{**options, "revision": self.commit}))
        except InvalidInputError:  # without a connection; the network is there all the same
            return self

    def inherited(self, licence_too: bool) -> dict[str, Any]:
        """What holds for a network that was made from this one: where it comes from and, if asked, its licence."""
        facts: dict[str, Any] = {} if self.folder is not None else {"base_model": self.name}
        if self.card is None or not self.card.is_file():
            return facts
        try:
            told = read_metadata(self.card)
        except InvalidInputError as error:
            warnings.warn(f"The licence of {self.name} is not known: {error}", stacklevel=3)
            return facts
        names = ("base_model", *(("license", "license_name", "license_link") if licence_too else ()))
        return {name: told[name] for name in names if told.get(name) is not None} | facts


def _find(name: str, options: dict[str, Any]) -> _Source:
    """A folder, or a repository on the Hub, with its configuration."""
    if not name:
        raise InvalidInputError("The name of the model is empty: give a folder, or user/name on the Hub.")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, or of nobody's home
        raise InvalidInputError(f"There is no model folder {name[:80]!r}.") from None
    if is_folder:
        config = path / CONFIG_FILE
        if not config.is_file():
            raise InvalidInputError(f"{name} has no {CONFIG_FILE}: it is no model saved by hvq_inpaint.")
        return _Source(name, read_json(config, name), folder=path.resolve())
    if is_file:
        raise InvalidInputError(f"{name} is a file: give the folder that holds the model.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InvalidInputError(f"There is no model folder {name}.")
    config = fetch(name, CONFIG_FILE, **options)
    if config is None:
        raise InvalidInputError(
            f"The Hub repository {name} has no {CONFIG_FILE}: it holds no model saved by hvq_inpaint."
        )
    # In the cache, what belongs to a commit lies in a folder of its name.
    return _Source(name, read_json(config, name), commit=config.parent.name)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    kind = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if kind not in _DTYPES.values():
        raise InvalidInputError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype}.")
    return kind
