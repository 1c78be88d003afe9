"""What the report shows: pictures that are SVG, of the same molecules in every generation; and what an export says of a row."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pytest

from refeed.families.molecules import exhibit
from refeed.families.molecules.worlds import positions_of, rows_of
from refeed.report.sections import image
from refeed.studies.files import parse


def svg(uri):
    assert uri.startswith("data:image/svg+xml;base64,")
    return ElementTree.fromstring(base64.b64decode(uri.partition(",")[2]))


def circles(uri):
    return [e for e in svg(uri).iter() if e.tag.endswith("circle")]


def test_a_picture_has_a_ball_for_every_atom_inside_its_frame(samples, world):
    for uri, number in zip(exhibit.conformers(samples, world=world, count=3), (3, 4, 5), strict=True):
        balls = circles(uri)
        assert len(balls) == len(world.molecules.atoms[number])
        assert all(0 <= float(ball.get(axis)) <= 200 for ball in balls for axis in ("cx", "cy"))
        assert "<img" in image(uri)


def test_pictures_do_not_depend_on_how_a_molecule_lies(world):
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    q = (q * np.sign(np.linalg.det(q))).astype(np.float32)
    turned = rows_of(world.train["molecule"], [x @ q + 7 for x in positions_of(world.train)])
    for one, other in zip(exhibit.followed(world, world.train), exhibit.followed(world, turned), strict=True):
        places = [np.array([[float(b.get(a)) for a in ("cx", "cy")] for b in circles(uri)]) for uri in (one, other)]
        assert np.abs(np.sort(places[0], axis=0) - np.sort(places[1], axis=0)).max() < 0.5


def test_the_same_molecules_are_shown_in_every_generation(model, world, samples):
    real, made = exhibit.portrait(None, world=world, rows=world.train), exhibit.portrait(model, world=world, rows=samples)
    assert list(real) == list(made) == ["the same molecules", "bonds, torsions and coverage"]
    for one, other in zip(real["the same molecules"], made["the same molecules"], strict=True):
        assert len(circles(one)) == len(circles(other))
    assert len(made["bonds, torsions and coverage"]) == 3
    for uri in made["bonds, torsions and coverage"]:
        assert "nan" not in ElementTree.tostring(svg(uri)).decode()


def test_torsions_and_bonds_are_measured(world):
    molecules = type(world.molecules).of([("CCCC", [6] * 4, [0] * 4, [[0, 1, 1], [1, 2, 1], [2, 3, 1]])], hydrogens=False)
    angle = np.radians(70)
    x = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1.5], [np.cos(angle), -np.sin(angle), 1.5]])
    rows = rows_of([0], [x])
    assert exhibit.torsion_angles(molecules, rows) == pytest.approx([70], abs=1e-3)
    assert exhibit.bond_lengths(molecules, rows) == pytest.approx([1, 1.5, 1])


def test_an_export_says_which_molecule_a_row_is(world, samples, tmp_path):
    world.save_extras(tmp_path)
    found = exhibit.decode(samples, folder=tmp_path)
    assert found["smiles"][0] == world.molecules.smiles[3]
    assert len(found["elements"][0]) == len(positions_of(samples)[0])
    assert set(found["elements"][0]) <= {"C", "N", "O", "F", "S", "Cl"}


def test_a_study_of_molecules_is_checked_before_it_runs():
    from refeed.core.errors import StudyError

    study = parse('family = "molecules"', name="m")
    assert [metric.name for metric in study.cases[0].metrics] == ["denoising_loss", "geometry", "coverage"]
    with pytest.raises(StudyError, match=r"'denoising_loss' needs distance_loss, which neither the learner GeoDiff"):
        parse('family = "molecules"\nlearner = { objective = "aligned" }', name="m")
    aligned = 'family = "molecules"\nlearner = { objective = "aligned" }\nmetrics = ["aligned_loss"]'
    assert parse(aligned, name="m").cases[0].learner.objective == "aligned"
