"""The results of a project in a browser: the page, its tiles, and the server of both."""
