from trainbus_optim.averages import (
    ema as ema,
    lookahead as lookahead,
    schedule_free as schedule_free,
)
from trainbus_optim.blocks import Block as Block, block as block
from trainbus_optim.catalog import optimizers as optimizers
from trainbus_optim.chain import Chain as Chain
from trainbus_optim.classic import (
    adadelta as adadelta,
    adagrad as adagrad,
    adam as adam,
    adamax as adamax,
    adamw as adamw,
    nadam as nadam,
    radam as radam,
    rmsprop as rmsprop,
    sgd as sgd,
)
from trainbus_optim.decays import (
    cautious_decay as cautious_decay,
    decay as decay,
    independent_decay as independent_decay,
    l2 as l2,
)
from trainbus_optim.factoring import factored as factored
from trainbus_optim.limits import (
    adaptive_clip as adaptive_clip,
    cautious as cautious,
    centralize as centralize,
    clip_norm as clip_norm,
    clip_value as clip_value,
    noise as noise,
    rms_clip as rms_clip,
    trust_ratio as trust_ratio,
)
from trainbus_optim.matrix import orthogonal as orthogonal
from trainbus_optim.modern import (
    adabelief as adabelief,
    adafactor as adafactor,
    adan as adan,
    adopt as adopt,
    cautious_adamw as cautious_adamw,
    lamb as lamb,
    laprop as laprop,
    lars as lars,
    lion as lion,
    mars as mars,
    muon as muon,
    prodigy as prodigy,
    ranger as ranger,
    schedule_free_adamw as schedule_free_adamw,
    schedule_free_sgd as schedule_free_sgd,
    soap as soap,
    sophia as sophia,
)
from trainbus_optim.moments import (
    ema_momentum as ema_momentum,
    momentum as momentum,
    sign as sign,
)
from trainbus_optim.newer import (
    proximal_decay as proximal_decay,
    variance_reduced as variance_reduced,
)
from trainbus_optim.plugin import Optim as Optim
from trainbus_optim.recipe import Recipe as Recipe
from trainbus_optim.sharpness import SAM as SAM, sam as sam
