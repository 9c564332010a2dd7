"""The parts of the pages and texts that show a result: charts, tables, sentences. Views only, nothing is computed."""
