"""The stages of a job: for each one its engine (plain functions over arrays) and its thin Ray Serve class.

This package knows nothing of HTTP requests, jobs, the database or callbacks; `serve_app` does, and imports from here.
"""
