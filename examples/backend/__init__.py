"""The ECG Backend as the integration guide writes it: see README.md beside this file."""
