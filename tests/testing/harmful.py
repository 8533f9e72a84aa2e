"""Plugins that do harm, each in one way: by check, its source and what is said of it.

`*` stands for anything in between. The text behind the colon tells cases of one check apart.
"""

HARMFUL = {
    # --- what is left of a run -------------------------------------------------------------------
    "begins_each_run_afresh: weights": (
        """
class Bad:
    def __init__(self) -> None:
        self.factor = 1.0
    @hookimpl
    def on_after_backward(self, run):
        self.factor *= 0.9
        run.task.head.weight.grad.mul_(self.factor)
""",
        "trains other weights in the second run of a trainer*set it in on_run_start",
    ),
    "begins_each_run_afresh: a state": (
        """
class Bad:
    def __init__(self) -> None:
        self.steps = 0
    @hookimpl
    def on_after_optimizer_step(self):
        self.steps += 1
    def state_dict(self):
        return {"steps": self.steps}
    def load_state_dict(self, state):
        self.steps = state["steps"]
""",
        "has another state after the second run of a trainer*'steps': 20*'steps': 10",
    ),
    "begins_each_run_afresh: of the class": (
        """
class Bad:
    seen = []
    @hookimpl
    def on_epoch_end(self, run):
        self.seen.append(run.epoch)
""",
        "changes Bad.seen, which all objects of its class share",
    ),
    "begins_each_run_afresh: it stops at once": (
        """
class Bad:
    def __init__(self) -> None:
        self.epochs = 0
    @hookimpl
    def on_epoch_end(self, run):
        self.epochs += 1
        if self.epochs > 2:
            run.stop("enough")
""",
        "made runs end as completed, stopped, not completed, completed",
    ),
    "lets_go_of_the_run: the run": (
        """
class Bad:
    @hookimpl
    def on_run_start(self, run):
        self.run = run
""",
        "keeps the Run alive after its end (self.run)",
    ),
    "lets_go_of_the_run: in a list": (
        """
class Bad:
    def __init__(self) -> None:
        self.runs: list = []
    @hookimpl
    def on_run_end(self, run):
        self.runs.append(run)
""",
        "keeps the Run alive after its end",
    ),
    "lets_go_of_the_run: batches": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        self.batches = []
    @hookimpl
    def on_train_batch_end(self, run):
        self.batches.append(run.batch)
    @hookimpl
    def on_fit_end(self):
        self.batches.clear()
""",
        "keeps 5 batches of an epoch alive at its end",
    ),
    "lets_go_of_the_run: graphs": (
        """
class Bad:
    @hookimpl
    def on_train_epoch_start(self):
        self.total = 0
        self.losses = []
    @hookimpl
    def on_after_loss(self, run):
        self.losses.append((run.batch, run.loss_to_backward))
    @hookimpl
    def on_run_end(self):
        self.losses = []
""",
        "keeps 5 batches of an epoch alive at its end",
    ),
    # --- the process -----------------------------------------------------------------------------
    "puts_back_what_it_changes: threads of torch": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        torch.set_num_threads(torch.get_num_threads() + 1)
""",
        "left torch.get_num_threads() as",
    ),
    "survives[fit]: the precision of products": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        torch.set_float32_matmul_precision("medium")
""",
        "left torch.get_float32_matmul_precision() as medium; it was highest",
    ),
    "puts_back_what_it_changes: the environment": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        os.environ["BAD_PLUGIN"] = "1"
""",
        "left the environment: BAD_PLUGIN is '1', it was None",
    ),
    "puts_back_what_it_changes: the log": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        import logging
        logging.getLogger().setLevel(logging.CRITICAL)
""",
        "left the level of the root logger as 50; it was",
    ),
    "puts_back_what_it_changes: warnings": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        import warnings
        warnings.filterwarnings("ignore", message="bad")
""",
        "left warnings.filters: added are [('ignore'",
    ),
    "survives[fit]: the working directory": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        os.makedirs("elsewhere", exist_ok=True)
        os.chdir("elsewhere")
""",
        "left the working directory as",
    ),
    "survives[fit]: a signal": (
        """
class Bad:
    @hookimpl
    def on_run_end(self):
        signal.signal(signal.SIGUSR1, lambda *_: None)
""",
        "left the handler of SIGUSR1 as",
    ),
    "puts_back_what_it_changes: the locale": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        import locale
        here = locale.setlocale(locale.LC_CTYPE)
        locale.setlocale(locale.LC_CTYPE, "C" if here != "C" else "C.UTF-8")
""",
        "left the locale as",
    ),
    "survives[fit]: deterministic algorithms": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        torch.use_deterministic_algorithms(True)
""",
        "left deterministic algorithms as True; it was False",
    ),
    "survives[fit]: gradients": (
        """
class Bad:
    @hookimpl
    def on_run_end(self):
        torch.set_grad_enabled(False)
""",
        "left torch.is_grad_enabled() as False; it was True",
    ),
    "puts_back_what_it_changes: sys.path": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        sys.path.insert(0, "/bad")
""",
        "left sys.path: added are ['/bad']",
    ),
    "puts_back_what_it_changes: the excepthook": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        sys.excepthook = lambda *_: None
""",
        "left sys.excepthook as",
    ),
    "puts_back_what_it_changes: stdout": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        import io
        sys.stdout = io.StringIO()
""",
        "left sys.stdout as",
    ),
    "puts_back_what_it_changes: a thread": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self):
        self.wait = threading.Event()
        threading.Thread(target=self.wait.wait, name="bad thread", daemon=True).start()
""",
        "left a thread running after the run: bad thread; end it in on_run_end",
    ),
    "puts_back_what_it_changes: a file": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self, run):
        self.file = open(run.dir / "bad.log", "w")
""",
        "left a file open after the run: *bad.log; close it in on_run_end",
    ),
    # --- what is not its own ---------------------------------------------------------------------
    "changes_no_record: numbers": (
        """
class Bad:
    @hookimpl
    def on_metrics(self, metrics):
        metrics["bad/one"] = 1.0
""",
        "",
    ),
    "changes_no_record: parameters": (
        """
class Bad:
    @hookimpl
    def on_params(self, params):
        for value in params.values():
            if isinstance(value, dict):
                value.clear()
""",
        "on_params: TypeError: what was logged is read-only*copy it",
    ),
    "makes_no_step_of_its_own": (
        """
class Bad:
    @hookimpl
    def on_after_backward(self, run):
        for optimizer in run.optimizers:
            optimizer.step()
""",
        "SGD has stepped 2 times for one step of the run",
    ),
    "survives[fit]: a value from an event": (
        """
class Bad:
    @hookimpl
    def on_train_batch_start(self, run):
        return [each * 1 for each in run.batch]
""",
        "plugin 'bad', on_train_batch_start: it returned a value of the type list",
    ),
    "survives[a step that fails]: it is swallowed": (
        """
class Bad:
    @hookimpl(wrapper=True)
    def training_step(self, run):
        try:
            return (yield)
        except Exception:
            return run.task.head.weight.sum()
""",
        "let a run end well that Mishap was to end in training_step of its third batch",
    ),
    "draws_no_random_numbers_of_others: torch": (
        """
class Bad:
    @hookimpl
    def on_epoch_start(self):
        torch.rand(1)
""",
        "draws from the generator of torch, which all share",
    ),
    "draws_no_random_numbers_of_others: python": (
        """
class Bad:
    @hookimpl
    def on_epoch_start(self):
        import random
        random.random()
""",
        "draws from the generator of random, which all share",
    ),
    "changes_nothing: the batch": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_train_batch_start(self, run):
        run.batch[0].mul_(0.5)
""",
        "is an observer, and the weights are others with it",
    ),
    "changes_nothing: gradients": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_before_optimizer_step(self, run):
        run.task.head.weight.grad.clamp_(-1e-3, 1e-3)
""",
        "is an observer, and the weights are others with it",
    ),
    "changes_nothing: weights": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_epoch_end(self, run):
        with torch.no_grad():
            run.task.head.bias.zero_()
""",
        "is an observer, and the weights are others with it",
    ),
    "changes_nothing: modes": (
        """
class Bad:
    observer = True
    @hookimpl
    def on_epoch_start(self, run):
        run.model.eval()
""",
        "is an observer, and the weights are others with it",
    ),
    "works_on_another_rank: it raises there": (
        """
class Bad:
    @hookimpl
    def on_run_start(self, run):
        assert run.rank == 0, "for the first process only"
""",
        "for the first process only*raised by plugin 'bad', on_run_start",
    ),
    "writes_into_the_runs_directory": (
        """
class Bad:
    @hookimpl
    def on_epoch_end(self, run):
        Path("bad.csv").write_text("1")
""",
        "writes outside of the run's directory: bad.csv; write to run.dir",
    ),
    "costs_little_time": (
        """
class Bad:
    @hookimpl
    def on_train_batch_end(self):
        import time
        time.sleep(0.02)
""",
        "ms of each step, not 10 at most, most of it in on_train_batch_end",
    ),
    "constructs_with_defaults: a default that is shared": (
        """
class Bad:
    def __init__(self, names: list[str] = []) -> None:
        self.names = names
    @hookimpl
    def on_fit_start(self): ...
""",
        "has the option 'names' with the default [], which all its objects share",
    ),
    "constructs_with_defaults: half a state": (
        """
class Bad:
    @hookimpl
    def on_fit_start(self): ...
    def state_dict(self):
        return {}
""",
        "has one of state_dict and load_state_dict",
    ),
    "keeps_its_state_through_a_checkpoint[inside an epoch]: the moment": (
        """
class Bad:
    steps = 0
    @hookimpl
    def on_after_backward(self, run):
        self.steps += 1
        run.task.head.weight.grad.mul_(self.steps)
""",
        "after a resume (*) of a run that was interrupted after step 7, inside an epoch",
    ),
    "survives[Ctrl-C]: it is swallowed": (
        """
class Bad:
    @hookimpl
    def on_train_batch_end(self, run):
        run.interruption = None
""",
        "let a run end well that KeyboardInterrupt was to end after its third batch",
    ),
    # --- loggers ---------------------------------------------------------------------------------
    "flushes_what_it_was_given": (
        """
class Bad:
    @hookimpl
    def on_log_start(self, run):
        self.lines = []
    @hookimpl
    def on_metrics(self, step, metrics):
        self.lines.append(f"{step} {dict(metrics)}")
    @hookimpl
    def on_log_end(self, run):
        (run.dir / "bad.log").write_text(chr(10).join(self.lines))
""",
        "writes nothing in on_log_flush, and * bytes at the end",
    ),
    "goes_on_in_the_same_remote_run: the state": (
        """
class Bad:
    @hookimpl
    def on_log_start(self, run):
        import uuid
        run.state["id"] = uuid.uuid4().hex
""",
        "begins another remote run when a run is resumed: run.state['id'] was '",
    ),
    "goes_on_in_the_same_remote_run: the link": (
        """
class Bad:
    @hookimpl
    def on_log_start(self, run):
        import uuid
        run.header["bad"] = f"https://bad/{uuid.uuid4().hex}"
""",
        "begins another remote run when a run is resumed: run.header['bad'] was 'https://bad/",
    ),
    "takes_every_record: one is dropped": (
        """
import json
class Bad:
    @hookimpl
    def on_log_start(self, run):
        self.file = open(run.dir / "bad.log", "a")
    @hookimpl
    def on_metrics(self, step, metrics):
        for name, value in metrics.items():
            if step != 3:
                print(json.dumps([name, step, value]), file=self.file)
    @hookimpl
    def on_log_flush(self):
        self.file.flush()
    @hookimpl
    def on_log_end(self):
        self.file.close()

def read(directory):
    found = {}
    for line in (directory / "bad.log").read_text().splitlines():
        name, step, value = json.loads(line)
        found.setdefault(name, []).append((step, value))
    return found

OPTIONS = {"read": read}
""",
        "drops or changes numbers: of train/loss it has",
    ),
}
