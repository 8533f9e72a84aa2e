"""Who started a process is read from its environment."""

import pytest

from trainbus import UsageError
from trainbus_distributed import recognised

PLACE = {"MASTER_ADDR": "node1", "MASTER_PORT": "1234"}


def test_nothing_is_a_process_alone():
    assert recognised({}) is None


def test_one_process_of_a_launcher_is_alone():
    assert recognised({"RANK": "0", "WORLD_SIZE": "1", **PLACE}) is None


def test_torchrun():
    found = recognised(
        {
            "RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8",
            "GROUP_RANK": "1", "TORCHELASTIC_RUN_ID": "x", **PLACE,
        }
    )  # fmt: skip
    assert (found.by, found.rank, found.world_size) == ("torchrun", 9, 16)
    assert (found.local_rank, found.node, found.address, found.port) == (1, 1, "node1", 1234)


def test_kubernetes():
    given = {"RANK": "3", "WORLD_SIZE": "4", "KUBERNETES_SERVICE_HOST": "10.0.0.1", **PLACE}
    found = recognised(given)
    assert "Kubernetes" in found.by
    assert (found.rank, found.local_rank, found.node) == (3, 0, 3)


def test_slurm():
    found = recognised(
        {
            "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "16", "SLURM_STEP_NUM_NODES": "2",
            "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
            "SLURM_STEP_NODELIST": "gpu[07-08],other", "SLURM_JOB_ID": "4711",
        }
    )  # fmt: skip
    assert (found.by, found.rank, found.world_size, found.local_world_size) == ("Slurm", 9, 16, 8)
    assert (found.address, found.port) == ("gpu07", 14_711)


def test_the_script_of_sbatch_is_a_process_alone():
    assert recognised({"SLURM_PROCID": "0", "SLURM_NTASKS": "16", "SLURM_JOB_ID": "4711"}) is None


def test_open_mpi_on_one_machine_needs_no_address():
    found = recognised(
        {
            "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        }
    )  # fmt: skip
    assert (found.rank, found.address) == (1, "127.0.0.1")


def test_open_mpi_on_several_needs_one():
    given = {
        "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    }  # fmt: skip
    with pytest.raises(UsageError, match="MASTER_ADDR is not set"):
        recognised(given)


def test_mpich():
    given = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    assert recognised(given).local_rank == 1


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"WORLD_SIZE": "2", **PLACE}, "RANK is None"),
        ({"RANK": "x", "WORLD_SIZE": "2", **PLACE}, "RANK is 'x'"),
        ({"RANK": "2", "WORLD_SIZE": "2", **PLACE}, "rank 2 of 2"),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_it(given, what):
    with pytest.raises(UsageError, match=what):
        recognised(given)
