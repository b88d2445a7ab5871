"""Whether a Workflow Run RO-Crate is valid, by rocrate-validator, without a network:

    .venv-validators/bin/python tests/validators/crate.py CRATE SEVERITY

Prints each issue of the profile Workflow Run Crate 0.5 and what it extends; exit code 1 if there is one. The two
JSON-LD contexts that a crate names lie on a server. Here the terms that crates of microsr use have the meanings that
they have there.
"""

import sys
from types import SimpleNamespace

from rdflib.plugins.shared.jsonld import context, util
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

BIOSCHEMAS = "https://bioschemas.org/"
TERMS = {
    "@vocab": "http://schema.org/",
    "File": "http://schema.org/MediaObject",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "sha256": "https://w3id.org/ro/terms/workflow-run#sha256",
    "ComputationalWorkflow": f"{BIOSCHEMAS}ComputationalWorkflow",
    "FormalParameter": f"{BIOSCHEMAS}FormalParameter",
    "input": f"{BIOSCHEMAS}ComputationalWorkflow#input",
}
PLAIN = """
about actionStatus additionalType contentSize datePublished description encodingFormat endTime exampleOfWork hasPart
identifier instrument license mainEntity mentions name object operatingSystem programmingLanguage result
softwareRequirements softwareVersion startTime url value version workExample
ComputerLanguage CreateAction CreativeWork Dataset PropertyValue SoftwareApplication SoftwareSourceCode
"""
"""Terms that are schema.org's own."""
CONTEXT = {"@context": TERMS | {term: f"http://schema.org/{term}" for term in PLAIN.split()}}


def give_context(source: object, *_: object, **__: object) -> tuple[dict, None]:
    """What a parser of JSON-LD gets in place of a context."""
    assert str(source).startswith("https://w3id.org/ro/"), source
    return CONTEXT, None


def answer(_: HttpRequester, address: str, **__: object) -> SimpleNamespace:
    """What the validator gets in place of a server's answer."""
    return SimpleNamespace(
        status_code=200, headers={"Content-Type": "application/ld+json"}, json=lambda: give_context(address)[0]
    )


def main(crate: str, severity: str) -> int:
    """Validate a crate; how many issues it has."""
    util.source_to_json = context.source_to_json = give_context
    HttpRequester.get = answer
    settings = services.ValidationSettings(
        rocrate_uri=crate, profile_identifier="workflow-run-crate-0.5", requirement_severity=models.Severity[severity]
    )
    issues = list(services.validate(settings).get_issues())
    for issue in issues:
        print(issue.severity.name, issue.check.identifier, issue.message)
    return len(issues)


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
