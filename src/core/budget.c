#include "core/budget.h"

_Thread_local struct budget budget;
