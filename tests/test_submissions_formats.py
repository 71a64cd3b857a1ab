from competition.tasks import QC
from submissions.formats import json_records


def test_a_key_twice_is_found_however_the_line_is_spelled() -> None:
    lines = [
        b'{"id":1,"id":1,"language":"en","origin_query":"q","category_path":"c","prediction":1}',
        b'{"id":1,"language":"en","origin_query":"19\\" q","category_path":"","prediction":1, "x":1,"x" : 1}',
        b'{"id":1,"i\\u0064":1,"language":"en","origin_query":"q","category_path":"c","prediction":1}',
    ]
    for line in lines:
        (record,) = json_records(line, "f", QC)
        assert any("is repeated" in fault.found for fault in record.faults), line


def test_spaces_between_tokens_and_escapes_of_ascii_are_allowed() -> None:
    line = b'{ "id": 1, "prediction": 0, "language": "en", "category_path": "c", '
    line += b'"origin_query": "\\u0041\\\\u00e9\\n" }\r\n'
    (record,) = json_records(line, "f", QC)
    assert record.faults == []
    assert record.fields == ("en", "A\\u00e9\n", "c")
