"""Networks from options, and the options back from a network."""

import pytest

from shiftgrad.models import Block, Dense, GlobalAverage, Network, NetworkError
from shiftgrad.recipes import Options, network_of, options_of

IMAGE = ("digits", (8, 8, 1), 10)


@pytest.mark.parametrize("options", [
    Options(model="mlp", hidden=(13, 7)), Options(model="mlp", hidden=()), Options(model="lenet", channels=(4, 6)),
    Options(model="fixup_resnet", channels=(4, 4, 8, 8), shortcut="conv", zero_range=0.5),
    Options(model="fixup_resnet", depth=2, width=4), Options(model="fixup_resnet"),
])
def test_the_options_of_a_network_make_it_again(options: Options) -> None:
    network = network_of(*IMAGE, options)
    assert network_of(*IMAGE, options_of(network, {})) == network
    assert network_of(*IMAGE, options_of(network, options.given)) == network


def test_an_option_given_changes_that_alone() -> None:
    network = network_of(*IMAGE, Options(model="fixup_resnet", depth=3, width=4, zero_range=0.5))
    deeper = network_of(*IMAGE, options_of(network, {"depth": 4}))
    assert deeper == network_of(*IMAGE, Options(model="fixup_resnet", depth=4, width=4, zero_range=0.5))


def test_a_network_of_the_users_own_has_no_options() -> None:
    own = Network(name="small", shape=(8, 8, 1), layers=(
        Block(name="block", channels=4, step=2, shortcut="conv"), GlobalAverage(name="mean"),
        Dense(name="fc", units=10)))
    with pytest.raises(NetworkError, match="no model 'small'"):
        network_of(*IMAGE, options_of(own, {"depth": 1}))
