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
from trainbus_optim.decays import decay as decay, l2 as l2
