from trainbus_distributed.launch import Launch as Launch, recognised as recognised
from trainbus_distributed.peers import TorchPeers as TorchPeers
from trainbus_distributed.plugin import Distributed as Distributed
