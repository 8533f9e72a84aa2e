"""Installed plugins that are broken: they harm nobody until named, then the message says all."""

import pytest

from trainbus import PluginError, Trainer

BROKEN = ("broken", "crashed", "twin", "outdated", "needy", "elderly", "misspelt")


def refusal(*plugins):
    """The message with which a trainer refuses these plugins."""
    with pytest.raises(PluginError) as caught:
        Trainer(plugins=plugins)
    return str(caught.value)


def test_broken_plugins_do_not_hurt_the_others(in_zoo, fit):
    assert fit("good").header["good"] == "was here"


def test_a_broken_plugin_that_is_named_stops_the_trainer(in_zoo):
    message = refusal("good", "broken")
    assert "plugin 'broken'" in message
    assert "trainbus-broken 1.0" in message
    assert "RuntimeError: no licence file" in message


def test_a_script_in_the_environment_ends_before_its_first_step(zoo):
    script = """
from trainbus import Trainer
print(*Trainer(plugins=["good"]).bus.plugins)
Trainer(plugins=["broken"])
print("went on")
"""
    done = zoo.run("-c", script, status=1)
    assert "good" in done.stdout
    assert "went on" not in done.stdout
    assert "trainbus-broken" in done.stderr.splitlines()[-1]


def test_an_import_that_the_plugin_needs_is_named(in_zoo):
    assert "No module named 'no_such_module'" in refusal("crashed")


def test_all_that_cannot_be_loaded_is_reported_together(in_zoo):
    message = refusal("broken", "good", "crashed", "outdated", "nosuch")
    for part in ("trainbus-broken 1.0", "trainbus-crashed 1.0", "trainbus>=9", "'nosuch'"):
        assert part in message
    assert "'good'" not in message


def test_a_bad_option_is_reported_together_with_a_broken_plugin(in_zoo, tmp_path):
    (tmp_path / "trainbus.toml").write_text("[options.typed]\nsteps = 'many'")
    message = refusal("broken", "typed")
    assert "trainbus-broken" in message
    assert "steps" in message


def test_two_plugins_with_bad_listeners_are_reported_together(in_zoo, tmp_path):
    (tmp_path / "other.py").write_text(
        "from trainbus import hookimpl\n\n@hookimpl\ndef on_fit_ent(run): ...\n"
    )
    message = refusal("misspelt", "./other.py")
    assert "on_fit_strat" in message
    assert "on_fit_ent" in message


def test_a_name_of_two_distributions_is_refused_with_both(in_zoo):
    message = refusal("twin")
    assert "'twin'" in message
    assert "acme-twin" in message
    assert "other-twin" in message
    assert "uninstall one" in message


def test_an_outdated_plugin_is_refused_before_it_is_imported(in_zoo):
    message = refusal("outdated")
    assert "plugin 'outdated' (trainbus-outdated 1.0)" in message
    assert "trainbus>=9" in message
    assert "pip install -U trainbus-outdated" in message
    assert "not_yet" not in message


def test_a_missing_sdk_is_refused_with_the_line_that_installs_it(in_zoo):
    message = refusal("needy")
    assert "plugin 'needy' (trainbus-needy 1.0)" in message
    assert "no-such-sdk is not installed" in message
    assert message.endswith("pip install -U 'no-such-sdk>=2.5'")


def test_an_sdk_that_is_too_old_is_refused_with_both_versions(in_zoo):
    message = refusal("elderly")
    assert "needs pluggy>=99, but pluggy 1." in message
    assert message.endswith("pip install -U 'pluggy>=99'")


def test_a_misspelt_hook_names_the_plugin_the_distribution_and_the_nearest(in_zoo):
    message = refusal("misspelt")
    assert "plugin 'misspelt' (trainbus-misspelt 1.0)" in message
    assert "no hook 'on_fit_strat' is declared; did you mean 'on_fit_start'?" in message


def test_a_misspelt_plugin_is_answered_with_the_nearest_installed(in_zoo):
    assert "no plugin 'enegry' is installed; did you mean 'energy'?" in refusal("enegry")


def test_a_plugin_like_no_other_is_answered_with_what_is_installed(in_zoo):
    message = refusal("qqqqqq")
    assert "no plugin 'qqqqqq' is installed" in message
    assert "did you mean" not in message
    assert "good" in message.partition("Installed: ")[2]


def test_a_known_plugin_that_is_not_installed_is_answered_with_the_pip_line(zoo):
    done = zoo.trainbus("-p", "tensorboard", "plugins", "--hooks", status=2)
    message = "error: plugin 'tensorboard' is not installed: pip install trainbus-tensorboard"
    assert done.stderr.strip() == message


def test_a_misspelt_known_plugin_is_answered_with_the_known_name(zoo):
    done = zoo.trainbus("-p", "tensorbord", "plugins", "--hooks", status=2)
    assert "did you mean 'tensorboard'?" in done.stderr


# --- what the listing and the doctor say of them -------------------------------------------------


def test_the_listing_says_what_is_broken_as_far_as_metadata_tells(in_zoo, trainbus):
    done = trainbus("plugins")
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert {name for name, line in lines.items() if line.split()[1] == "broken"} == {
        "twin", "outdated", "needy", "elderly",
    }  # fmt: skip
    assert "also provided by other-twin; uninstall one" in lines["twin"]
    assert "pip install -U trainbus-outdated" in lines["outdated"]
    assert "pip install -U 'no-such-sdk>=2.5'" in lines["needy"]


def test_the_listing_says_how_to_get_a_plugin_that_is_missing(zoo):
    lines = zoo.trainbus("-p", "tensorboard", "plugins").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("tensorboard "))
    assert line.split()[1] == "missing"
    assert line.endswith("pip install trainbus-tensorboard")


def test_the_doctor_reports_each_broken_plugin_with_its_cure(in_zoo, trainbus):
    done = trainbus("doctor", status=1)
    found = {line.split()[1]: line for line in done.stdout.splitlines() if " broken " in line}
    assert "RuntimeError: no licence file" in found["broken"]
    assert "No module named 'no_such_module'" in found["crashed"]
    assert "other-twin; uninstall one" in found["twin"]
    assert "pip install -U trainbus-outdated" in found["outdated"]
    assert "pip install -U 'no-such-sdk>=2.5'" in found["needy"]
    assert "pip install -U 'pluggy>=99'" in found["elderly"]
    assert "did you mean 'on_fit_start'?" in found["misspelt"]
    assert "good" not in found
    assert done.stdout.splitlines()[-1] == "7 problems found"


def test_the_doctor_tells_a_plugin_that_needs_options_from_a_broken_one(in_zoo, trainbus):
    lines = trainbus("doctor", status=1).stdout.splitlines()
    (plain,) = (line for line in lines if " plain " in line)
    assert plain.split()[0] == "options"
    assert "needs the option 'size'" in plain


def test_the_doctor_reports_what_is_switched_on_and_cannot_be_registered(in_zoo, trainbus):
    done = trainbus("-p", "misspelt", "doctor", status=1)
    assert "did you mean 'on_fit_start'?" in done.stdout


def test_help_survives_a_broken_plugin(zoo):
    done = zoo.trainbus("--help", TRAINBUS_PLUGINS="broken")
    assert "plugins" in done.stdout
    assert "trainbus-broken" in done.stderr


@pytest.mark.parametrize("verb", ["plugins", "hooks", "doctor"])
def test_no_plugins_works_whatever_is_switched_on(in_zoo, monkeypatch, trainbus, verb):
    monkeypatch.setenv("TRAINBUS_PLUGINS", ",".join(BROKEN))
    done = trainbus("--no-plugins", verb, status=int(verb == "doctor"))
    assert done.stderr == ""
    assert "cannot be loaded" not in done.stdout


@pytest.mark.parametrize("verb", ["plugins", "hooks", "doctor"])
def test_no_plugins_works_beside_a_project_file_that_cannot_be_read(
    in_zoo, tmp_path, trainbus, verb
):
    (tmp_path / "trainbus.toml").write_text("plugins = [")
    done = trainbus("--no-plugins", verb, status=int(verb == "doctor"))
    assert done.stderr == ""
    assert "good" in done.stdout or verb == "hooks"


def test_no_plugins_leaves_a_trainer_without_any(in_zoo, told):
    told("broken", disabled=True)
    assert list(Trainer(plugins=["good"]).bus.plugins) == ["core"]
