"""Rules: what a setting may be, and what is said where it is not."""

import inspect
import math
from dataclasses import FrozenInstanceError, fields
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstmlm import DecodeConfig, LSTMLanguageModel, ParameterError
from lstmlm.config import ModelConfig, Rule, TextConfig, TrainConfig

GROUPS = [TextConfig, ModelConfig, TrainConfig]
ALL_RULES = [
    pytest.param(name, rule, default, id=f"{group.__name__}.{name}")
    for group in [*GROUPS, DecodeConfig]
    for name, rule, default in zip(
        group.rules(), group.rules().values(), (f.default for f in fields(group)), strict=True
    )
]


def message_of(config, **values):
    with pytest.raises(ParameterError) as caught:
        config(**values)
    return str(caught.value)


@pytest.mark.parametrize(("name", "rule", "default"), ALL_RULES)
def test_every_default_keeps_its_own_rule(name, rule, default):
    checked = rule.check(name, default)
    assert checked == default
    assert type(checked) is type(default)


@pytest.mark.parametrize(("name", "rule", "default"), ALL_RULES)
def test_every_setting_has_a_help_of_one_line(name, rule, default):
    assert rule.help.endswith(".")
    assert "\n" not in rule.help
    assert len(rule.help) <= 90


@pytest.mark.parametrize(("name", "rule", "default"), ALL_RULES)
@pytest.mark.parametrize("wrong", ["", "auto ", [], {}, object(), 1j, b"auto", math.nan])
def test_nonsense_is_refused_in_one_line(name, rule, default, wrong):
    if rule.many and wrong == []:
        assert rule.check(name, wrong) == ()
        return
    if (
        rule.kind is str
        and not rule.choices
        and isinstance(wrong, str)
        and (wrong or not rule.many)
    ):
        assert rule.check(name, wrong) == ((wrong,) if rule.many else wrong)
        return
    with pytest.raises(ParameterError) as caught:
        rule.check(name, wrong)
    assert str(caught.value) == f"{name}={wrong!r} is not valid; {name} is {rule.due()}."


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (
            ModelConfig,
            {"hidden_size": 0},
            "hidden_size=0 is not valid; hidden_size is an integer at least 1 and at most 65536, "
            'or "auto".',
        ),
        (
            TextConfig,
            {"vocab_size": 1},
            "vocab_size=1 is not valid; vocab_size is an integer at least 2 and at most 16777216, "
            'or "auto".',
        ),
        (
            ModelConfig,
            {"dropout": 1},
            'dropout=1 is not valid; dropout is a number at least 0 and less than 1, or "auto".',
        ),
        (
            ModelConfig,
            {"output": "adptive"},
            "output='adptive' is not valid; output is 'softmax' or 'adaptive', or \"auto\". "
            "Did you mean 'adaptive'?",
        ),
        (
            ModelConfig,
            {"tie_weights": 1},
            "tie_weights=1 is not valid; tie_weights is True or False.",
        ),
        (
            TrainConfig,
            {"context": "auto"},
            "context='auto' is not valid; context is 'document' or 'stream'.",
        ),
        (
            TrainConfig,
            {"max_epochs": 1.5},
            'max_epochs=1.5 is not valid; max_epochs is an integer at least 0, or "auto", or None.',
        ),
        (
            TrainConfig,
            {"max_seconds": 0},
            "max_seconds=0 is not valid; max_seconds is a number greater than 0, or None.",
        ),
        (
            TrainConfig,
            {"n_iter_no_change": None},
            "n_iter_no_change=None is not valid; n_iter_no_change is an integer at least 1.",
        ),
        (
            DecodeConfig,
            {"top_p": 1.01},
            "top_p=1.01 is not valid; top_p is a number greater than 0 and at most 1.",
        ),
    ],
)
def test_messages(config, values, message):
    assert message_of(config, **values) == message


@pytest.mark.parametrize(
    ("config", "name", "inside", "outside"),
    [
        (TextConfig, "vocab_size", [2, 2**24], [1, 2**24 + 1]),
        (TextConfig, "min_frequency", [1, 10**9], [0]),
        (ModelConfig, "hidden_size", [1, 2**16], [0, 2**16 + 1]),
        (ModelConfig, "num_layers", [1, 64], [0, 65]),
        (ModelConfig, "dropout", [0, 0.999], [-0.001, 1, math.inf]),
        (TrainConfig, "max_epochs", [0, None], [-1]),
        (TrainConfig, "max_seconds", [1e-9, 1, None], [0, -1, -math.inf]),
        (TrainConfig, "learning_rate", [0, 10.0], [-1e-9]),
        (TrainConfig, "clip_norm", [1e-9, None], [0]),
        (TrainConfig, "validation_fraction", [0.001, 0.999], [0, 1]),
        (DecodeConfig, "max_new_tokens", [0, 10**6], [-1, None, "auto"]),
        (DecodeConfig, "temperature", [1e-3, 100], [0, -1]),
        (DecodeConfig, "top_k", [0, 1], [-1]),
        (DecodeConfig, "top_p", [1e-9, 1], [0, 1.0000001]),
    ],
)
def test_ends_of_ranges(config, name, inside, outside):
    for value in inside:
        assert getattr(config(**{name: value}), name) == value
    for value in outside:
        assert message_of(config, **{name: value}).startswith(f"{name}={value!r} is not valid;")


@pytest.mark.parametrize(
    ("name", "given_as", "plain"),
    [
        ("hidden_size", np.int64(7), 7),
        ("hidden_size", np.uint8(7), 7),
        ("dropout", np.float32(0.5), 0.5),
        ("dropout", np.int32(0), 0.0),
        ("dropout", 0, 0.0),
        ("dropout", Fraction(1, 4), 0.25),
        ("tie_weights", np.bool_(False), False),
        ("output", np.str_("softmax"), "softmax"),
    ],
)
def test_numpys_scalars_become_pythons(name, given_as, plain):
    taken = getattr(ModelConfig(**{name: given_as}), name)
    assert taken == plain
    assert type(taken) is type(plain)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("hidden_size", True),
        ("hidden_size", np.bool_(True)),
        ("hidden_size", 16.0),
        ("hidden_size", np.float64(16)),
        ("hidden_size", "16"),
        ("dropout", False),
        ("dropout", "0.1"),
        ("tie_weights", 0),
        ("tie_weights", "False"),
        ("tie_weights", None),
        ("output", 0),
    ],
)
def test_a_value_of_another_type_is_not_converted(name, wrong):
    assert message_of(ModelConfig, **{name: wrong}).startswith(f"{name}={wrong!r} is not valid;")


@given(st.integers() | st.floats(allow_nan=True))
def test_a_rule_holds_exactly_its_range(value):
    rule = Rule(help="", kind=float, low=-2, below=3)
    if -2 <= value < 3:
        assert rule.check("x", value) == value
    else:
        with pytest.raises(ParameterError):
            rule.check("x", value)


def test_settings_dont_change():
    with pytest.raises(FrozenInstanceError):
        TrainConfig().max_epochs = 3


def test_of_takes_what_belongs_to_it():
    values = {"hidden_size": 8, "max_epochs": 3, "anything": object()}
    assert ModelConfig.of(values) == ModelConfig(hidden_size=8)
    assert TrainConfig.of(values) == TrainConfig(max_epochs=3)


@pytest.mark.parametrize("config", GROUPS, ids=lambda config: config.__name__)
def test_the_estimators_defaults_are_those_of_config(config):
    parameters = inspect.signature(LSTMLanguageModel).parameters
    for field in fields(config):
        assert field.name in parameters, f"{field.name} is no parameter of the estimator"
        default = parameters[field.name].default
        assert (default, type(default)) == (field.default, type(field.default)), field.name


def test_the_estimators_parameters_are_keywords_without_a_check():
    parameters = inspect.signature(LSTMLanguageModel).parameters.values()
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    wrong = {parameter.name: object() for parameter in parameters}
    kept = LSTMLanguageModel(**wrong).get_params(deep=False)
    assert kept == wrong


# ---- DecodeConfig.merged ----


def test_merged_changes_go_before_the_base():
    base = DecodeConfig(temperature=0.5, top_k=3)
    assert DecodeConfig.merged(None) == DecodeConfig()
    assert DecodeConfig.merged(base) == base
    assert DecodeConfig.merged(base, top_k=7) == DecodeConfig(temperature=0.5, top_k=7)
    assert DecodeConfig.merged({"top_p": 0.9}, top_k=7) == DecodeConfig(top_p=0.9, top_k=7)


def test_merged_leaves_the_base_as_it_is():
    base = {"top_k": 3}
    DecodeConfig.merged(base, top_k=7)
    assert base == {"top_k": 3}


OPTIONS = ", ".join(DecodeConfig.rules())


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (
            None,
            {"temprature": 0.5},
            f"'temprature' is not an option of generation; the options are {OPTIONS}. "
            "Did you mean 'temperature'?",
        ),
        (
            {"zebra": 2},
            {},
            f"'zebra' is not an option of generation; the options are {OPTIONS}.",
        ),
        (
            "greedy",
            {},
            "generation_config is a str; give a DecodeConfig, a dict of its options or None.",
        ),
        (
            {"temperature": 0},
            {},
            "temperature=0 is not valid; temperature is a number greater than 0.",
        ),
    ],
)
def test_merged_refuses(base, changes, message):
    with pytest.raises(ParameterError) as caught:
        DecodeConfig.merged(base, **changes)
    assert str(caught.value) == message


def test_merged_refuses_an_option_that_is_no_name():
    with pytest.raises(ParameterError) as caught:
        DecodeConfig.merged({1: 2})
    message = f"1 is not an option of generation; the options are {OPTIONS}."
    assert str(caught.value) == message
