"""What our nodes see of ComfyUI and torch, where neither is: modules made of the recorded interfaces, whose methods and
functions only take what the real ones take. The few that have to do something do the least, here."""

import contextlib
import enum
import importlib.util
import inspect
import json
import pathlib
import sys
import types

import numpy as np

from record_interfaces import RECORD

FOLDER = pathlib.Path(__file__).resolve().parents[3] / "client" / "comfyui"


def signature(parameters):
    """Of what record_interfaces.parameters wrote."""
    kinds = inspect.Parameter
    made = []
    for text in parameters:
        kind = kinds.VAR_KEYWORD if text.startswith("**") else kinds.VAR_POSITIONAL if text.startswith("*") else None
        if kind is None:
            kind = kinds.KEYWORD_ONLY if made and made[-1].kind == kinds.VAR_POSITIONAL else kinds.POSITIONAL_OR_KEYWORD
        default = None if text.endswith("=") else kinds.empty
        made.append(kinds(text.strip("*="), kind, default=default))
    return inspect.Signature(made)


def recorded():
    return json.loads(RECORD.read_text())


class Tensor(np.ndarray):
    """numpy's, with the names that torch has for the same."""

    def float(self):
        return self.astype(np.float32)

    def is_floating_point(self):
        return self.dtype.kind == "f"

    def to(self, *_):
        return self

    detach = cpu = to

    def numpy(self):
        return np.asarray(self)

    device = "cpu"


def tensor(values):
    return np.asarray(values, np.float32).view(Tensor)


class _Module:
    def eval(self):
        return self


def _torch():
    torch = types.ModuleType("torch")
    torch.Tensor, torch.device, torch.dtype = Tensor, str, type
    torch.float32, torch.float16, torch.bfloat16 = np.float32, np.float16, None
    torch.stack = lambda arrays: np.stack(arrays).view(Tensor)
    torch.frombuffer = lambda data, dtype: np.frombuffer(data, dtype).view(Tensor)
    torch.allclose = np.allclose
    torch.nn = types.SimpleNamespace(Module=_Module)
    return torch


def _callable(name, parameters, body):
    """A function of exactly these parameters. Without a body it must not be called."""
    takes = signature(parameters)

    def function(*args, **kwargs):
        takes.bind(*args, **kwargs)
        if body is None:
            raise AssertionError(f"{name} has no stand-in")
        return body(*args, **kwargs)

    function.__name__, function.__signature__ = name, takes
    return function


class _Model:
    def __init__(self, model_config, model_type=None, device=None, unet_model=None):
        self.model_config, self.model_type = model_config, model_type
        self.model_sampling = types.SimpleNamespace()

    def extra_conds(self, **kwargs):
        return {}


class _Patcher:
    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
        self.model, self.load_device, self.offload_device = model, load_device, offload_device
        self.model_options, self.object_patches, self.wrappers = {"transformer_options": {}}, {}, {}

    def clone(self):
        return self.__class__(self.model, self.load_device, self.offload_device)


class _Clip:
    def __init__(self, target=None, embedding_directory=None, no_init=False, **_):
        assert no_init

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict={}, show_pbar=True):
        encoded = self.encode_from_tokens(tokens, return_pooled=True, return_dict=True)
        return [[encoded.pop("cond"), {**encoded, **add_dict}]]


class _Vae:
    def __init__(self, sd=None, **_):
        assert not sd


class _Bar:
    def __init__(self, total, node_id=None):
        pass

    def update_absolute(self, value, total=None, preview=None):
        assert total is None or 0 <= value <= total > 0  # pages divide by it


class _Lora:
    def load_lora(self, model, clip, lora_name, strength_model, strength_clip):
        return (model and f"{model}+{lora_name}", clip and f"{clip}+{lora_name}")


class _Constant:
    def __init__(self, cond):
        self.cond = cond


class _Config:
    def __init__(self, unet_config):
        self.unet_config, self.sampling_settings = unet_config, {}


_BODIES = {"BaseModel": _Model, "ModelPatcher": _Patcher, "CLIP": _Clip, "VAE": _Vae, "ProgressBar": _Bar, "LoraLoader": _Lora,
           "CONDConstant": _Constant}
_FUNCTIONS = {"processing_interrupted": lambda: False, "throw_exception_if_processing_interrupted": lambda: None,
              "unload_all_models": lambda: "unloaded"}


def _class(name, described, known):
    bases = tuple(known[base] for base in described["bases"] if base in known) or (_Module,)
    body = _BODIES.get(name)
    methods = {method: _callable(f"{name}.{method}", parameters, vars(body).get(method) if body else None)
               for method, parameters in described["methods"].items()}
    return type(name, bases, methods)


def _module(name, names):
    module = types.ModuleType(name)
    known = {}
    for thing, described in names.items():
        if "parameters" in described:
            body = _FUNCTIONS.get(thing, (lambda: "cpu") if thing.endswith("_device") else None)
            made = _callable(f"{name}.{thing}", described["parameters"], body)
        elif "members" in described:
            made = enum.Enum(thing, described["members"])
        elif name == "comfy.supported_models":
            made = type(thing, (_Config,), {})
        else:
            made = known[thing] = _class(thing, described, known)
        setattr(module, thing, made)
    return module


@contextlib.contextmanager
def comfyui():
    """Our nodes' package, imported among the stand-ins."""
    modules = {"torch": _torch(), **{name: _module(name, names) for name, names in recorded().items()}}
    modules["comfy"] = types.ModuleType("comfy")
    for name, module in modules.items():
        if name.startswith("comfy."):
            setattr(modules["comfy"], name[6:], module)
    modules["comfy.samplers"].KSampler.SAMPLERS = ["euler"]
    modules["comfy.samplers"].KSampler.SCHEDULERS = ["normal"]
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    spec = importlib.util.spec_from_file_location("stand_in_nodes", FOLDER / "__init__.py",
                                                  submodule_search_locations=[str(FOLDER)])
    package = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = package
    try:
        spec.loader.exec_module(package)
        yield package
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == spec.name]:
            del sys.modules[name]
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
