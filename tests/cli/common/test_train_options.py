"""The options of training: their defaults are those of the settings that they make."""

from edgellm.cli.common.train_options import TrainOptions
from edgellm.training.run.settings import TrainSettings


def test_options_that_nobody_gives_make_the_settings_that_nobody_changed():
    assert TrainOptions().settings() == TrainSettings()
