define void @kernel(ptr noalias %args, ptr noalias %scratch) {
entry:
  %v1 = load i64, ptr %args, align 8
  %x.address = inttoptr i64 %v1 to ptr
  %v2 = getelementptr i64, ptr %args, i64 1
  %v3 = load i64, ptr %v2, align 8
  %v4 = getelementptr i64, ptr %args, i64 2
  %v5 = load i64, ptr %v4, align 8
  %v6 = getelementptr i64, ptr %args, i64 5
  %v7 = load i64, ptr %v6, align 8
  %out.address = inttoptr i64 %v7 to ptr
  %v8 = getelementptr i64, ptr %args, i64 6
  %v9 = load i64, ptr %v8, align 8
  %v10 = getelementptr i64, ptr %args, i64 7
  %v11 = load i64, ptr %v10, align 8
  %v12 = getelementptr i64, ptr %args, i64 10
  %v13 = load i64, ptr %v12, align 8
  %v14 = trunc i64 %v13 to i16
  %v15 = bitcast i16 %v14 to half
  %v16 = fpext half %v15 to float
  %v17 = icmp ne i64 %v5, 2
  %v18 = ptrtoint ptr %x.address to i64
  %v19 = add i64 %v18, 2
  %v20 = icmp slt i64 %v3, 0
  %v21 = select i1 %v20, i64 %v3, i64 0
  %v22 = add i64 %v18, %v21
  %v23 = select i1 %v20, i64 0, i64 %v3
  %v24 = add i64 %v19, %v23
  %v25 = add i64 %v24, 38
  %v26 = ptrtoint ptr %out.address to i64
  %v27 = add i64 %v26, 2
  %v28 = icmp slt i64 %v9, 0
  %v29 = select i1 %v28, i64 %v9, i64 0
  %v30 = add i64 %v26, %v29
  %v31 = select i1 %v28, i64 0, i64 %v9
  %v32 = add i64 %v27, %v31
  %v33 = add i64 %v32, 38
  %v34 = icmp ult i64 %v22, %v33
  %v35 = icmp ult i64 %v30, %v25
  %v36 = and i1 %v34, %v35
  %v37 = icmp eq ptr %x.address, %out.address
  %v38 = icmp eq i64 %v3, %v9
  %v39 = and i1 %v37, %v38
  %v40 = icmp eq i64 %v5, %v11
  %v41 = and i1 %v39, %v40
  %v42 = xor i1 %v41, -1
  %v43 = and i1 %v36, %v42
  %v44 = or i1 %v17, %v43
  br i1 %v44, label %rare, label %chosen, !prof !1
chosen:
  %v45 = phi ptr [%scratch, %rare], [%x.address, %entry]
  %v46 = phi i64 [40, %rare], [%v3, %entry]
  %v47 = phi i64 [2, %rare], [%v5, %entry]
  %v48 = icmp ne i64 %v11, 2
  %v49 = getelementptr i8, ptr %scratch, i64 192
  br i1 %v48, label %rare.2, label %chosen.2, !prof !1
rare:
  call void @pto_wsp_copy_2(ptr %scratch, i64 40, i64 2, ptr %x.address, i64 %v3, i64 %v5, i64 2, i64 20)
  br label %chosen
chosen.2:
  %v50 = phi ptr [%v49, %rare.2], [%out.address, %chosen]
  %v51 = phi i64 [40, %rare.2], [%v9, %chosen]
  %v52 = phi i64 [2, %rare.2], [%v11, %chosen]
  %v53 = icmp eq i64 %v46, 40
  %v54 = and i1 %v53, 1
  %v55 = icmp eq i64 %v51, 40
  %v56 = and i1 %v54, %v55
  br i1 %v56, label %then, label %else
rare.2:
  br label %chosen.2
then:
  %v57 = mul i64 %v46, 0
  %v58 = getelementptr i8, ptr %v45, i64 %v57
  %v59 = load <16 x i16>, ptr %v58, align 2
  %v60 = bitcast <16 x i16> %v59 to <16 x half>
  %v61 = fpext <16 x half> %v60 to <16 x float>
  %v62 = insertelement <16 x float> undef, float %v16, i32 0
  %v63 = shufflevector <16 x float> %v62, <16 x float> undef, <16 x i32> zeroinitializer
  %v64 = fmul <16 x float> %v61, %v63
  %v65 = fptrunc <16 x float> %v64 to <16 x half>
  %v66 = bitcast <16 x half> %v65 to <16 x i16>
  %v67 = bitcast <16 x i16> %v66 to <16 x half>
  %v68 = fpext <16 x half> %v67 to <16 x float>
  %v69 = mul i64 %v51, 0
  %v70 = getelementptr i8, ptr %v50, i64 %v69
  store <16 x i16> %v66, ptr %v70, align 2
  %v71 = mul i64 %v46, 0
  %v72 = getelementptr i8, ptr %v45, i64 %v71
  %v73 = getelementptr i16, ptr %v72, i64 16
  %v74 = load <16 x i16>, ptr %v73, align 2
  %v75 = bitcast <16 x i16> %v74 to <16 x half>
  %v76 = fpext <16 x half> %v75 to <16 x float>
  %v77 = insertelement <16 x float> undef, float %v16, i32 0
  %v78 = shufflevector <16 x float> %v77, <16 x float> undef, <16 x i32> zeroinitializer
  %v79 = fmul <16 x float> %v76, %v78
  %v80 = fptrunc <16 x float> %v79 to <16 x half>
  %v81 = bitcast <16 x half> %v80 to <16 x i16>
  %v82 = bitcast <16 x i16> %v81 to <16 x half>
  %v83 = fpext <16 x half> %v82 to <16 x float>
  %v84 = mul i64 %v51, 0
  %v85 = getelementptr i8, ptr %v50, i64 %v84
  %v86 = getelementptr i16, ptr %v85, i64 16
  store <16 x i16> %v81, ptr %v86, align 2
  %v87 = mul i64 %v46, 0
  %v88 = getelementptr i8, ptr %v45, i64 %v87
  %v89 = getelementptr i16, ptr %v88, i64 32
  %v90 = call <16 x i16> @llvm.masked.load.v16i16.p0(ptr %v89, i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %v91 = bitcast <16 x i16> %v90 to <16 x half>
  %v92 = fpext <16 x half> %v91 to <16 x float>
  %v93 = insertelement <16 x float> undef, float %v16, i32 0
  %v94 = shufflevector <16 x float> %v93, <16 x float> undef, <16 x i32> zeroinitializer
  %v95 = fmul <16 x float> %v92, %v94
  %v96 = fptrunc <16 x float> %v95 to <16 x half>
  %v97 = bitcast <16 x half> %v96 to <16 x i16>
  %v98 = bitcast <16 x i16> %v97 to <16 x half>
  %v99 = fpext <16 x half> %v98 to <16 x float>
  %v100 = mul i64 %v51, 0
  %v101 = getelementptr i8, ptr %v50, i64 %v100
  %v102 = getelementptr i16, ptr %v101, i64 32
  %v103 = shufflevector <16 x i16> %v97, <16 x i16> %v97, <8 x i32> <i32 0, i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7>
  store <8 x i16> %v103, ptr %v102, align 2
  br label %done
else:
  br label %loop
done:
  br i1 %v48, label %then.2, label %done.3, !prof !1
loop:
  %v104 = phi i64 [0, %else], [%v137, %body]
  %v105 = icmp slt i64 %v104, 2
  br i1 %v105, label %body, label %done.2
body:
  %v106 = mul i64 %v104, %v46
  %v107 = getelementptr i8, ptr %v45, i64 %v106
  %v108 = load <16 x i16>, ptr %v107, align 2
  %v109 = bitcast <16 x i16> %v108 to <16 x half>
  %v110 = fpext <16 x half> %v109 to <16 x float>
  %v111 = insertelement <16 x float> undef, float %v16, i32 0
  %v112 = shufflevector <16 x float> %v111, <16 x float> undef, <16 x i32> zeroinitializer
  %v113 = fmul <16 x float> %v110, %v112
  %v114 = fptrunc <16 x float> %v113 to <16 x half>
  %v115 = bitcast <16 x half> %v114 to <16 x i16>
  %v116 = bitcast <16 x i16> %v115 to <16 x half>
  %v117 = fpext <16 x half> %v116 to <16 x float>
  %v118 = mul i64 %v104, %v51
  %v119 = getelementptr i8, ptr %v50, i64 %v118
  store <16 x i16> %v115, ptr %v119, align 2
  %v120 = mul i64 %v104, %v46
  %v121 = getelementptr i8, ptr %v45, i64 %v120
  %v122 = getelementptr i16, ptr %v121, i64 16
  %v123 = call <16 x i16> @llvm.masked.load.v16i16.p0(ptr %v122, i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %v124 = bitcast <16 x i16> %v123 to <16 x half>
  %v125 = fpext <16 x half> %v124 to <16 x float>
  %v126 = insertelement <16 x float> undef, float %v16, i32 0
  %v127 = shufflevector <16 x float> %v126, <16 x float> undef, <16 x i32> zeroinitializer
  %v128 = fmul <16 x float> %v125, %v127
  %v129 = fptrunc <16 x float> %v128 to <16 x half>
  %v130 = bitcast <16 x half> %v129 to <16 x i16>
  %v131 = bitcast <16 x i16> %v130 to <16 x half>
  %v132 = fpext <16 x half> %v131 to <16 x float>
  %v133 = mul i64 %v104, %v51
  %v134 = getelementptr i8, ptr %v50, i64 %v133
  %v135 = getelementptr i16, ptr %v134, i64 16
  %v136 = shufflevector <16 x i16> %v130, <16 x i16> %v130, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %v136, ptr %v135, align 2
  %v137 = add nuw nsw i64 %v104, 1
  br label %loop
done.2:
  br label %done
then.2:
  %v138 = getelementptr i8, ptr %scratch, i64 192
  call void @pto_wsp_copy_2(ptr %out.address, i64 %v9, i64 %v11, ptr %v138, i64 40, i64 2, i64 2, i64 20)
  br label %done.3
done.3:
  ret void
}

declare void @pto_wsp_copy_2(ptr, i64, i64, ptr, i64, i64, i64, i64)
declare <16 x i16> @llvm.masked.load.v16i16.p0(ptr, i32, <16 x i1>, <16 x i16>)
!1 = !{!"branch_weights", i32 1, i32 1048576}

define i64 @"kernel.scratch"() {
  ret i64 384
}
