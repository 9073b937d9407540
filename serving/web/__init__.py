"""The small web page of the serving path; off unless the settings say `web: true`."""
