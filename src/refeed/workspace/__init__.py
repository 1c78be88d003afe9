"""The workspace: steps on disk, done once, checked by checksum, safe to kill at any moment."""

from refeed.workspace.remote import RemoteWorkspace, open_workspace
from refeed.workspace.workspace import DamagedWarning, Workspace

__all__ = ["DamagedWarning", "RemoteWorkspace", "Workspace", "open_workspace"]
