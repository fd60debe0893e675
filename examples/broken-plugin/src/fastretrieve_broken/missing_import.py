"""Imports what is not installed."""

import a_package_that_nobody_has


class Encoder:
    network = a_package_that_nobody_has.Network()
