"""`python -m trainbus`."""

from trainbus.cli import main

main()
