"""The version of this package, which the build takes from the tag in git."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("qprd")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0+unknown"
