"""The dashboard: /v1 with a face. Start reading in login.py (who gets in), then page.py, then one page.

inside.py asks /v1, texts.py has the words, formats.py writes times and sizes, assets.py serves script and stylesheet.
Each page is a module with a blueprint of its name.
"""

from importlib import resources

from flask import Blueprint
from flask.sansio.blueprints import BlueprintSetupState
from jinja2 import DictLoader
from werkzeug.exceptions import HTTPException, NotFound

from postqueue_api.errors import Error
from postqueue_api.web.dashboard import formats, page
from postqueue_api.web.dashboard.actions import actions
from postqueue_api.web.dashboard.assets import assets
from postqueue_api.web.dashboard.inside import Problem
from postqueue_api.web.dashboard.login import guard, hand_out, login
from postqueue_api.web.dashboard.message import message
from postqueue_api.web.dashboard.messages import messages
from postqueue_api.web.dashboard.operations import operations
from postqueue_api.web.dashboard.overview import overview
from postqueue_api.web.dashboard.trash import trash

dashboard = Blueprint("dashboard", __name__)
# Read at import, as all files are: web's user may be unable to enter the place of the package. Without indentation,
# which readers would load again and again.
_TEMPLATES = resources.files(__name__).joinpath("templates").iterdir()
dashboard.jinja_loader = DictLoader(
    {
        each.name: "\n".join(line.strip() for line in each.read_text(encoding="utf-8").splitlines())
        for each in _TEMPLATES
        if each.is_file()
    }
)

_PARTS = (login, assets, overview, messages, message, actions, operations, trash)
for part in _PARTS:
    dashboard.register_blueprint(part)
for part in (dashboard, *_PARTS):
    part.enable_openapi = False  # type: ignore[attr-defined] # APIFlask asks every blueprint, also those not its own
dashboard.before_request(guard)
dashboard.after_request(hand_out)
dashboard.after_request(page.complete)
dashboard.register_error_handler(Problem, page.of_problem)
dashboard.register_error_handler(Error, page.of_error)
dashboard.register_error_handler(HTTPException, page.of_error)
dashboard.register_error_handler(Exception, page.of_a_bug)
dashboard.app_errorhandler(NotFound)(page.of_nothing)
formats.install(dashboard)


@dashboard.record_once
def _tidy(state: BlueprintSetupState) -> None:
    """Lines that hold only a tag of a template leave nothing behind."""
    state.app.jinja_env.trim_blocks = state.app.jinja_env.lstrip_blocks = True
