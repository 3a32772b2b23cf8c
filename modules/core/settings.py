"""The app's settings; each is a flag `--like-this`, an environment variable `COLLOQUY_LIKE_THIS` and a YAML key `like_this`."""

from __future__ import annotations

from dataclasses import dataclass

from .knobs import Knob, knobs_of, setting


@dataclass(frozen=True)
class Settings:
    """Flags win over environment variables, those over the settings YAML, that over these defaults."""

    model: str = setting("str", "", "Model", "The model to load at start: a name from the model folders or a path. Empty: the one used last, else the starter model; 'none' loads nothing.", group="Model", maximum=4096)
    loader: str = setting("str", "", "Loader", "The loader to load it with; empty chooses the one that suits the file.", group="Model", maximum=64)
    models_dir: tuple[str, ...] = setting("list", ("models",), "Model folders", "Folders to look for models in; may be given several times.", group="Model", maximum=32)
    loras_dir: tuple[str, ...] = setting("list", ("loras",), "Adapter folders", "Folders to look for LoRA adapters in, beside the model folders; may be given several times.", group="Model", maximum=32)
    own_models_only: bool = setting("bool", False, "Own models only", "List only what is in the model folders, not what Ollama, LM Studio, the cache of Hugging Face and other programs have on this machine.", group="Model")
    servers: str = setting("str", "", "Servers file", "A YAML file that lists OpenAI-compatible servers, each with name, base_url, model and perhaps api_key or api_key_env; empty: servers.yaml in the data folder, if there.", group="Model", maximum=4096)
    max_models: int = setting("int", 1, "Models at once", "How many models may be loaded at the same time.", group="Model", minimum=1, maximum=16)
    autoload: bool = setting("bool", False, "Autoload", "Load a model when an API request names it; where that takes another's place, replies under way end first.", group="Model")
    idle_unload: float = setting("float", 0.0, "Unload when idle", "Minutes without a reply after which a model is unloaded; the next message or request loads it again as it was. 0: models stay loaded.", group="Model", minimum=0, maximum=100_000)
    max_queue: int = setting("int", 64, "Queue length", "How many runs may wait for a model; more are refused as busy.", group="Model", minimum=1, maximum=10_000)
    hub_url: str = setting("str", "", "Hub", "The Hugging Face hub that models are downloaded from, or a mirror of it; empty: HF_ENDPOINT, else https://huggingface.co.", group="Download", maximum=2048)
    hub_token: str = setting("str", "", "Hub token", "The token for gated models, sent to the hub's host alone; better given as a variable than as a flag, which other programs can see. Empty: the one saved in the Download tab, else HF_TOKEN.", group="Download", maximum=512, is_secret=True)
    offline: bool = setting("bool", False, "Offline", "Never ask the hub for anything; HF_HUB_OFFLINE=1 does the same.", group="Download")
    host: str = setting("str", "127.0.0.1", "Host", "The address to listen on.", group="Server", maximum=255)
    port: int = setting("int", 7860, "Port", "The port to listen on; if it is taken, the next free one is named.", group="Server", minimum=0, maximum=65535)
    listen: bool = setting("bool", False, "Listen", "Serve other devices on the network (host 0.0.0.0); an API key is then required, and made at first start.", group="Server")
    api_key: str = setting("str", "", "API key", "The key that requests must carry; empty: none on localhost, one made and kept in the data folder with --listen.", group="Server", maximum=512, is_secret=True)
    allowed_hosts: tuple[str, ...] = setting("list", (), "Allowed hosts", "Host names to answer to beside this machine's own; may be given several times.", group="Server", maximum=64)
    cors_origins: tuple[str, ...] = setting("list", (), "CORS origins", "Web origins whose pages may call the API; may be given several times.", group="Server", maximum=64)
    root_path: str = setting("str", "", "Root path", "The path prefix when served behind a reverse proxy, such as /colloquy.", group="Server", maximum=255)
    data_dir: str = setting("str", "data", "Data folder", "Where chats, settings and logs are kept.", group="Server", maximum=4096)
    no_browser: bool = setting("bool", False, "No browser", "Do not open the page in a browser at start.", group="Server")
    settings: str = setting("str", "", "Settings file", "A YAML file with these settings; empty: settings.yaml in the data folder, if there.", group="Server", maximum=4096)


SETTING_KNOBS: dict[str, Knob] = knobs_of(Settings)
