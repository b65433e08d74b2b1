"""The work of each command, from a project to files: the steps that join the packages below.

Knows neither Typer nor the command line.
"""
