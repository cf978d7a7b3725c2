"""The frozen pretrained transformer: its configuration, tokenizer and weights, from a directory or the hub.

Weights come from safetensors alone, and code that a model brings along is never run. A backbone of the hub is
loaded at the commit that the study file pins. Nothing is printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sweeper.disk import sha256
from sweeper.errors import SweeperError, UnreachableError, UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from sweeper.study import Backbone

Loaded = TypeVar("Loaded")


def load_config(backbone: Backbone) -> PretrainedConfig:
    """The configuration of a backbone, without its weights.

    Raises:
        UsageError: the directory or the hub's repository holds no configuration that transformers knows; or
            the study file names sites for a family that has others.
        UnreachableError: the hub cannot be reached and the model is not in its cache.
    """
    from transformers import AutoConfig

    config = _load(backbone, AutoConfig.from_pretrained)
    if backbone.sites is not None:
        _register(config.model_type, backbone)
    return config


def _register(model_type: str, backbone: Backbone) -> None:
    """Add the sites that a study file names to the table, for a family that is not there."""
    from adapters.architectures import ARCHITECTURES, register
    from adapters.errors import AdapterError
    from adapters.row import Architecture

    assert backbone.sites is not None
    row = Architecture.from_dict(model_type, backbone.sites)
    try:
        register(row)
    except AdapterError as error:
        advice = "; remove backbone.sites" if ARCHITECTURES[model_type].forward is not None else ""
        raise UsageError(f"backbone.sites: {error}{advice}", file=backbone.path or backbone.model) from error


def load_tokenizer(backbone: Backbone) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a backbone.

    Raises:
        UsageError: there is none that transformers can load.
        UnreachableError: the hub cannot be reached and the model is not in its cache.
    """
    from transformers import AutoTokenizer

    tokenizer = _load(backbone, AutoTokenizer.from_pretrained)
    # Without its files transformers makes a tokenizer all the same: one to which every word is unknown.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise UsageError(_NO_TOKENIZER, file=backbone.path or backbone.model)
    return tokenizer


def load_backbone(
    backbone: Backbone,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    language_head: bool = False,
) -> PreTrainedModel:
    """The backbone itself, frozen and in eval mode.

    A pooling layer behind the last layer (BERT, RoBERTa) is left out where the model allows it: nothing here
    reads it, and many checkpoints do not hold it.

    Args:
        dtype: "float32", "bfloat16" or "float64".
        device: where the weights go.
        language_head: with its language modelling head.

    Raises:
        UsageError: there are no safetensors weights, or they do not fill the whole model.
        UnreachableError: the hub cannot be reached and the model is not in its cache.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    config = load_config(backbone)
    # Tensors of another shape are let through here so as to be named below.
    options: dict[str, Any] = {
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    if _has_optional_pooler(config) and not language_head:
        options["add_pooling_layer"] = False
    auto_class = AutoModelForCausalLM if language_head else AutoModel
    model, loading = _load(backbone, auto_class.from_pretrained, **options)
    # transformers draws at random what a checkpoint lacks, and goes on.
    missing = sorted(loading["missing_keys"]) + sorted(name for name, *_ in loading["mismatched_keys"])
    if missing:
        raise UsageError(
            f"the weights of the backbone do not fill the model: {len(missing)} tensors are missing or of "
            f"another shape, {missing[0]} among them. Point backbone.model at a complete checkpoint",
            file=backbone.path or backbone.model,
        )
    return model.eval().requires_grad_(False).to(device)


def parameter_count(model: PreTrainedModel) -> int:
    """Parameters of a backbone. Call it before adapters are put in: theirs would be counted, too."""
    return sum(parameter.numel() for parameter in model.parameters())


_POSITIONS_AFTER_PADDING = {
    "camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "roberta-prelayernorm",
    "xlm-roberta-xl", "xmod",
}  # fmt: skip
"""Families of texts that count as RoBERTa does and have no row of ours: they come with their sites named."""


def position_limit(config: PretrainedConfig) -> int | None:
    """The most tokens that a text may have in this backbone; None if its positions do not end.

    RoBERTa counts positions from behind its padding id, so two of its positions hold no token.
    """
    from adapters.architectures import ARCHITECTURES

    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions <= 0:
        return None
    row = ARCHITECTURES.get(config.model_type)
    after = config.model_type in _POSITIONS_AFTER_PADDING if row is None else row.positions_after_padding
    if after:
        return int(positions) - int(config.pad_token_id or 0) - 1
    return int(positions)


def is_causal(config: PretrainedConfig) -> bool:
    """Whether a token sees only those before it, so that the first one knows nothing of the text."""
    from adapters.architectures import ARCHITECTURES

    row = ARCHITECTURES.get(config.model_type)
    return (row is not None and (row.decoder or row).causal) or bool(getattr(config, "is_decoder", False))


def fingerprint(backbone: Backbone) -> str:
    """What identifies a backbone: ``name@revision`` on the hub, ``sha256:…`` of a directory.

    The digest covers the configuration and every safetensors file, by name and content.

    Raises:
        UsageError: the directory has no configuration or no safetensors file.
    """
    if not backbone.is_directory:
        return f"{backbone.model}@{backbone.revision}"
    folder = _folder(backbone)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UsageError(_NO_SAFETENSORS, file=folder)
    files = {path.name: sha256(path) for path in [folder / "config.json", *weights]}
    return "sha256:" + hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and the hub's client from writing on the terminal, and put back what was set."""
    import huggingface_hub.utils as hub
    from transformers.utils import logging

    verbosity, hub_verbosity = logging.get_verbosity(), hub.logging.get_verbosity()
    bars, hub_bars = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    logging.set_verbosity_error()
    hub.logging.set_verbosity_error()
    logging.disable_progress_bar()
    if hub_bars:
        hub.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub.logging.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            hub.enable_progress_bars()


def hub_error(error: Exception, name: str) -> SweeperError:
    """What the user should know about a failed access to the hub.

    Args:
        error: what a library raised; its causes tell a missing repository from a missing network.
        name: of the repository, with its revision.
    """
    from huggingface_hub import errors

    causes = list(_causes(error))
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return UsageError(f"{name} is gated: ask for access on the hub, then log in with `hf auth login`")
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return UsageError(f"{name}: the hub has no such revision")
    if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
        return UsageError(f"{name}: the hub has no such repository, or it is private")
    offline = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    if any(isinstance(cause, offline) for cause in causes):
        return UnreachableError(
            f"{name} is not in the local cache, and the hub cannot be reached. Connect and try again, or "
            "download it elsewhere and name its directory in the study file"
        )
    return UsageError(f"{name} cannot be loaded: {_first_line(error)}")


_NO_SAFETENSORS = (
    "the backbone has no safetensors weights; pickled weights are not loaded. Save it once more with "
    "`model.save_pretrained(...)` of a current transformers"
)

_NO_TOKENIZER = (
    "the backbone comes without its tokenizer: no vocabulary was found that can be loaded. Save it there "
    "with `tokenizer.save_pretrained(...)`"
)


_ONE_AT_A_TIME = threading.Lock()
"""transformers changes its own classes while it loads a model: of two threads at once, the one that ends last
leaves them changed, and tied weights are missing from then on."""


def _load(backbone: Backbone, load: Callable[..., Loaded], **options: Any) -> Loaded:
    """Call a ``from_pretrained`` on the directory, or on the hub's name at its revision."""
    source: str | Path = backbone.model
    if backbone.is_directory:
        source = _folder(backbone)
        options["local_files_only"] = True
    else:
        options["revision"] = backbone.revision
        if Path(backbone.model).exists():
            raise UsageError(
                f"{backbone.model} is a name of the hub, and something here has it, too, which transformers "
                f"would read in its place: run this from another folder than {Path.cwd()}"
            )
    try:
        with _ONE_AT_A_TIME, quiet():
            return load(str(source), trust_remote_code=False, **options)
    except Exception as error:  # what these functions raise for bad files is not documented
        plain = type(error) is Exception  # what the bindings of tokenizers raise
        if not plain and not isinstance(
            error, OSError | ValueError | KeyError | ImportError | _safetensors_error()
        ):
            raise
        text = str(error)
        if "trust_remote_code" in text:
            message = (
                "needs code of its own to be loaded, which is never run here; take a model that needs none"
            )
        elif "safetensors" in text and "no file named" in text:
            message = _NO_SAFETENSORS
        elif "backend tokenizer" in text:  # a list of what transformers looked for, over several lines
            message = _NO_TOKENIZER
        elif backbone.is_directory:
            message = f"the backbone cannot be loaded: {_first_line(error)}"
        else:
            raise hub_error(error, f"backbone {backbone.model}@{backbone.revision}") from error
        raise UsageError(message, file=backbone.path or backbone.model) from error


def _folder(backbone: Backbone) -> Path:
    folder = Path(backbone.path if backbone.path is not None else backbone.model)
    if not (folder / "config.json").is_file():
        raise UsageError("the backbone's directory holds no config.json", file=folder)
    return folder


def _has_optional_pooler(config: PretrainedConfig) -> bool:
    from transformers import MODEL_MAPPING

    model = MODEL_MAPPING.get(type(config), None)
    return inspect.isclass(model) and "add_pooling_layer" in inspect.signature(model.__init__).parameters


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
