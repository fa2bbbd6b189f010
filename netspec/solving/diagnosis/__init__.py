"""Why a run goes wrong."""
