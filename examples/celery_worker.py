"""A Celery worker that tracks events: one client per process, a user for each task.

It needs ``pip install celery`` beside this package. Messages are files in the folder
CELERY_FOLDER, so that no server has to run; with ``broker="redis://localhost"`` the
rest stays as it is.

Run it with AMPLITUDE_API_KEY set: ``celery -A examples.celery_worker worker``. Any pool
of processes or threads will do (``-P prefork``, ``-P threads``, ``-P solo``). ``python
examples/celery_worker.py`` sends it some tasks.
"""

import os
import tempfile
from pathlib import Path

from celery import Celery  # type: ignore[import-untyped]  # it has no types

from amplitude_async import bound
from amplitude_async.integrations.celery import AmplitudeTasks

__all__ = ["amplitude", "app", "welcome"]

folder = Path(os.environ.get("CELERY_FOLDER", tempfile.gettempdir())) / "messages"
folder.mkdir(parents=True, exist_ok=True)

app = Celery("examples.celery_worker", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder.with_name("control")),
}
amplitude = AmplitudeTasks(carry=["user_id"])


@app.task(name="welcome")  # type: ignore[untyped-decorator]
def welcome(language: str) -> None:
    """Welcome the user whom the sender of the task has bound."""
    amplitude.client.track("User Welcomed", event_properties={"language": language})
    print("welcomed in", language)


if __name__ == "__main__":
    for number, name in enumerate(["en", "de", "fr"]):
        with bound(user_id=f"user-{number}"):
            welcome.delay(name)
