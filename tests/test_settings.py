"""Settings: one declaration gives the flag, the environment variable and the YAML key, and their order of precedence."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.errors import BadRequest
from modules.core.options import flag_name, make_parser, read_settings, settings_path, variable_name
from modules.core.settings import SETTING_KNOBS, Settings

EXAMPLES: dict[str, tuple[str, object]] = {"float": ("12.5", 12.5), "int": ("3", 3), "bool": ("true", True),
                                           "str": ("some text", "some text"), "list": ("one", ("one",))}


def test_nothing_given_is_the_defaults() -> None:
    assert read_settings([], {}, {}) == Settings()


@pytest.mark.parametrize("name", SETTING_KNOBS)
def test_every_setting_can_be_given_as_flag_variable_and_key(name: str) -> None:
    text, value = EXAMPLES[SETTING_KNOBS[name].kind]
    assert getattr(read_settings([flag_name(name), text], {}, {}), name) == value
    assert getattr(read_settings([f"{flag_name(name)}={text}"], {}, {}), name) == value
    assert getattr(read_settings([], {variable_name(name): text}, {}), name) == value
    assert getattr(read_settings([], {}, {name: list(value) if isinstance(value, tuple) else value}), name) == value


def test_flags_win_over_variables_and_those_over_the_file() -> None:
    file = {"port": 1001, "host": "10.0.0.1", "max_queue": 5}
    environ = {"COLLOQUY_PORT": "1002", "COLLOQUY_HOST": "10.0.0.2", "HOME": "/nowhere"}
    settings = read_settings(["--port", "1003"], environ, file)
    assert (settings.port, settings.host, settings.max_queue) == (1003, "10.0.0.2", 5)


def test_a_switch_can_be_turned_off_again_by_its_flag() -> None:
    assert read_settings(["--listen"], {}, {}).listen is True
    assert read_settings(["--listen", "--port", "1"], {}, {}).listen is True
    assert read_settings(["--listen=false"], {"COLLOQUY_LISTEN": "1"}, {"listen": True}).listen is False


def test_a_list_is_given_by_repeating_the_flag_or_with_commas_or_lines_in_the_variable() -> None:
    assert read_settings(["--models-dir", "a,b", "--models-dir", "c"], {}, {}).models_dir == ("a,b", "c")
    assert read_settings([], {"COLLOQUY_ALLOWED_HOSTS": "a.example, b.example"}, {}).allowed_hosts == ("a.example", "b.example")
    assert read_settings([], {"COLLOQUY_MODELS_DIR": "a,b\nc"}, {}).models_dir == ("a,b", "c")


@pytest.mark.parametrize(("argv", "environ", "file", "source"), [
    (["--port", "70000"], {}, {}, "--port"),
    ([], {"COLLOQUY_PORT": "tcp://10.0.0.1:80"}, {}, "COLLOQUY_PORT"),
    ([], {}, {"port": [1]}, "settings file"),
])
def test_a_bad_value_names_its_range_and_where_it_came_from(argv: list[str], environ: dict[str, str], file: dict[str, object],
                                                            source: str) -> None:
    with pytest.raises(BadRequest, match="a whole number from 0 to 65535") as caught:
        read_settings(argv, environ, file)
    assert source in caught.value.message and caught.value.param == "port"


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(BadRequest, match="Did you mean models_dir"):
        read_settings([], {}, {"model_dir": ["x"]})


def test_an_unknown_variable_is_named_in_the_log_and_not_fatal(caplog: pytest.LogCaptureFixture) -> None:
    assert read_settings([], {"COLLOQUY_SERVICE_HOST": "10.0.0.1"}, {}) == Settings()
    assert "COLLOQUY_SERVICE_HOST" in caplog.text


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read_settings([], {"COLLOQUY_PORT": ""}, {"port": 9}).port == 9


def test_an_unknown_or_shortened_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--nonsense", "--lis"):
        with pytest.raises(SystemExit):
            read_settings([flag], {}, {})
    assert "unrecognized arguments" in capsys.readouterr().err


def test_the_settings_file_lies_in_the_data_folder_unless_named() -> None:
    assert settings_path([], {}) == (Path("data/settings.yaml"), False)
    assert settings_path(["--data-dir", "mine"], {"COLLOQUY_DATA_DIR": "other"}) == (Path("mine/settings.yaml"), False)
    assert settings_path([], {"COLLOQUY_SETTINGS": "here.yaml"}) == (Path("here.yaml"), True)


def test_help_shows_every_setting_with_its_sentence() -> None:
    shown = " ".join(make_parser().format_help().split())
    for name, knob in SETTING_KNOBS.items():
        assert flag_name(name) in shown and knob.help in shown
