/*
 * pem_samples.h -- a certificate for example.com with its key, and a key of another pair. Made for the
 * tests, valid until 2126, used nowhere else.
 */
#pragma once

static const char certificate_pem[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIIBhDCCASmgAwIBAgIUHpkizLW7Ea53KxJw0ehgAm1Lz6cwCgYIKoZIzj0EAwIw\n"
	"FjEUMBIGA1UEAwwLZXhhbXBsZS5jb20wIBcNMjYxMTI2MDI0MjQxWhgPMjEyNjEx\n"
	"MDIwMjQyNDFaMBYxFDASBgNVBAMMC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYI\n"
	"KoZIzj0DAQcDQgAESLFb2HWXn+ht3tFe3cj5A1pACbOB4lw9O/VaVOs6/WRPIx46\n"
	"UpimWpW/3eEfF7mx7SaDjBhgkuBWLr7XMUT8zaNTMFEwHQYDVR0OBBYEFL+8/n3S\n"
	"COTOeGgn96dAfuhU13gVMB8GA1UdIwQYMBaAFL+8/n3SCOTOeGgn96dAfuhU13gV\n"
	"MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAMT+L2rx4DBzIGdK\n"
	"RMxseNo6C78DeiRAsL7mMJnnuKoYAiEAte3X1q1Fq/Xc1lf5TCGguFDPieTnLuFH\n"
	"neSxnBxxO8o=\n"
	"-----END CERTIFICATE-----\n";
static const char key_pem[] =
	"-----BEGIN PRIVATE KEY-----\n"
	"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgidWbl42/rA/el33O\n"
	"XCsvHen2w/hIYbohwXs7MWr9gk+hRANCAARIsVvYdZef6G3e0V7dyPkDWkAJs4Hi\n"
	"XD079VpU6zr9ZE8jHjpSmKZalb/d4R8XubHtJoOMGGCS4FYuvtcxRPzN\n"
	"-----END PRIVATE KEY-----\n";
static const char other_key_pem[] =
	"-----BEGIN PRIVATE KEY-----\n"
	"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgG4A1TofBMC+mgP9G\n"
	"w4nAbqUe1exVTraS5zN9Tfy/CA2hRANCAARrrEXJIiylWFXBGChEZRLOJDVLd90S\n"
	"UziNvTMQYym6GiMJT34fXawaYPR/l7SFqzJuc5bGQwlQy3v+15QNr5M4\n"
	"-----END PRIVATE KEY-----\n";
