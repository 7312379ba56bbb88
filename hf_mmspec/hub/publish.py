"""Publishing: a planned publication becomes one commit of a repository, by huggingface_hub's own client.

The client sends large files first and skips what is there already, so an interrupted publication goes on where it
was, and readers see all of it or nothing. Decides nothing about which files a drafter has.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from ..modeling import Drafter
from .card import make_card
from .errors import PublishError
from .publication import CARD, Publication, PublishedFile, plan_publication
from .remote_code import FOLDER

# Files of a drafter's earlier publication, by folder: where a new one has no such file, they would be stale code or
# weights. Other Python files of the root may be anybody's.
_OURS = {
    "": ("configuration_*.py", "modeling_*.py", "model*.safetensors", "model.safetensors.index.json"),
    FOLDER: ("*.py",),
}


def publish(
    publication: Publication,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    commit_message: str = "Publish drafter",
    commit_description: str | None = None,
    create_pr: bool = False,
) -> str:
    """Make the repository hold the publication, with at most one commit; none where it does already.

    Args:
        repo_id: `ORG/NAME`; made where it does not exist.
        private: whether a new repository is private; None leaves it to the organisation's default.
        revision: branch to commit to, made where it does not exist. Default: main.
        token: default: the one that you logged in with.
        create_pr: propose the commit instead.

    Returns:
        The commit's address: the new one, or the last one where nothing has changed.

    Raises:
        PublishError: the Hub refuses or cannot be reached, or an existing public repository was to be private. What
            was sent is kept, and not sent again by the next attempt.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        info = api.model_info(repo_id, revision=revision)
        if private and not info.private:
            raise PublishError(f"{repo_id} exists and is public: make it private on the Hub, or leave out private")
        there = {sibling.rfilename for sibling in info.siblings or ()}
        return api.create_commit(
            repo_id,
            _operations(publication, there),
            commit_message=commit_message,
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        ).commit_url
    except HFValidationError as error:
        raise PublishError(f"--repo-id {repo_id}: {error}") from error
    except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: how the client reports a broken upload
        raise PublishError(_explain(repo_id, error)) from error


def push_to_hub(
    drafter: Drafter,
    repo_id: str,
    *,
    commit_message: str = "Publish drafter",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str = "50GB",
    tags: Iterable[str] = (),
) -> str:
    """`drafter.push_to_hub(repo_id)`: as that of every model of transformers, with all that `mmspec publish` sends.

    A card that the repository has is kept; a new one says what the drafter's config knows, and how to use it.

    Args:
        max_shard_size: weights are split into files of at most this size.
        tags: more tags for a new card.

    Raises:
        PublishError: see `publish`.
    """
    with TemporaryDirectory() as folder:
        drafter.save_pretrained(folder, max_shard_size=max_shard_size)
        publication = plan_publication(folder, needs_card=False)
        if not _has_card(repo_id, revision, token):
            made = make_card(folder, name=repo_id)
            made.data["tags"] = [*made.data["tags"], *tags]
            card = PublishedFile(CARD, str(made).encode())
            publication = Publication((*publication.files, card), publication.left_out)
        return publish(
            publication,
            repo_id,
            private=private,
            revision=revision,
            token=token,
            commit_message=commit_message,
            commit_description=commit_description,
            create_pr=create_pr,
        )


def install_push_to_hub() -> None:
    """Give drafters the method. It is not in modeling/, as what it sends is made from other parts of the package."""
    Drafter.push_to_hub = push_to_hub  # type: ignore[method-assign]


def _operations(publication: Publication, there: set[str]) -> list[Any]:
    adds = [CommitOperationAdd(file.path, file.content) for file in publication.files]
    stale = sorted(path for path in there - publication.paths if _is_ours(path))
    return [*adds, *(CommitOperationDelete(path) for path in stale)]


def _is_ours(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return any(fnmatch(name, pattern) for pattern in _OURS.get(folder, ()))


def _has_card(repo_id: str, revision: str | None, token: str | bool | None) -> bool:
    try:
        return HfApi(token=token).file_exists(repo_id, CARD, revision=revision)
    except (HTTPError, OSError, HFValidationError):  # `publish` meets the same trouble, and explains it
        return False


def _explain(repo_id: str, error: Exception) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in (401, 403):
        return (
            f"{repo_id}: the Hub refuses ({status}): log in with `hf auth login`, or give a token that may write "
            f"there ({error})"
        )
    cause = error.__cause__ or error
    return f"{repo_id}: not published, and nothing there has changed; try again to go on from here. ({cause})"
