"""What holds a line: detectors of poison, repair. A defense never imports an attack."""
