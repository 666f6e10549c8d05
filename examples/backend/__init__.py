"""An example ECG Backend after the integration guide: see README.md in this folder."""
