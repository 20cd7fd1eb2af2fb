/* process.h -- what every process tells of itself to Prometheus: version, start, time, memory, descriptors. */
#pragma once

void process_metrics(void);                       /* control thread, once */
void process_sample(void);                        /* sets them to what they are now */
